"""What may be named as BROKER and MODULE, and what is said of what may not."""

import pytest

APP = """
    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = StubBroker()
    durable = DurableMiddleware("sqlite:///app.db")
    broker.add_middleware(durable)
    durable.create_tables()


    class Container:
        broker = broker


    def setup():
        dramatiq.set_broker(broker)


    plain = StubBroker()


    def unset():
        dramatiq.set_broker(plain)


    @durable_actor(broker=broker)
    def charge():
        print("charged")
"""


@pytest.fixture
def shop(app):
    made = app(APP)
    (made.folder / "globally.py").write_text("import app\napp.setup()\n")
    (made.folder / "jobs.py").write_text(
        "import app\n"
        "from dramatiq_durable import Audit, durable_actor\n"
        "class Second(Audit):\n"
        "    class Meta:\n"
        "        table_name = 'second'\n"
        "        database = app.durable.database\n"
        "@durable_actor(broker=app.broker, audit_model=Second)\n"
        "def job(): pass\n"
    )
    (made.folder / "broken.py").write_text("import no_such_dependency\n")
    return made


@pytest.mark.parametrize("broker", ["globally", "app:broker", "app:Container.broker", "app:setup"])
def test_the_broker_is_named_as_for_the_dramatiq_command(shop, broker):
    done = shop.run("status", broker)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 pending" in done.stdout


def test_an_actor_that_is_named_for_the_broker_is_not_run(shop):
    done = shop.run("status", "app:charge")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "cannot import 'app:charge': ImportError: it is an actor; BROKER is module" in line


def test_further_modules_are_imported_for_their_actors(shop):
    alone = shop.run("schema", "sql", "app:broker")
    assert "durable_audits" in alone.stdout
    assert "second" not in alone.stdout
    more = shop.run("schema", "sql", "app:broker", "jobs")
    assert (more.returncode, more.stderr) == (0, "")
    assert "second" in more.stdout


@pytest.mark.parametrize(
    "name", ["status", "list", "purge", "monitor", "schema create", "schema sql"]
)
def test_commands_without_ids_take_further_modules_like_dramatiq(command, name):
    done = command(name, "json", "no_such_module")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no_such_module" in done.stderr


@pytest.mark.parametrize("name", ["show", "retry", "cancel"])
def test_commands_with_ids_take_further_modules_as_an_option(command, name):
    done = command(name, "an-id", "--module", "json", "-m", "no_such_module")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no_such_module" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere:broker"], "nowhere"),
        (["app:nothing"], "nothing"),
        (["app:durable"], "app:durable"),
        (["broken"], "no_such_dependency"),
        (["app:broker", "nowhere"], "nowhere"),
        (["app:plain"], "add_middleware(DurableMiddleware"),
        (["app:unset"], "add_middleware(DurableMiddleware"),
    ],
)
def test_what_is_no_broker_with_the_middleware_is_refused_in_one_line(shop, arguments, said):
    done = shop.run("status", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert said in line


def test_what_is_said_of_a_broker_that_is_missing_tells_how_to_name_one(shop):
    said = shop.run("status", "nowhere:broker").stderr
    assert "'nowhere:broker'" in said
    assert "module:broker" in said.replace("'nowhere:broker'", "")


def test_a_further_module_that_cannot_be_imported_is_itself_named(shop):
    said = shop.run("status", "app:broker", "broken").stderr
    assert "'broken'" in said
    assert "app:broker" not in said


def test_a_missing_broker_is_a_usage_error(shop):
    done = shop.run("status")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BROKER" in done.stderr


def test_the_traceback_of_an_import_is_shown_on_demand(shop):
    done = shop.run("status", "broken", "--verbose")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_it_may_be_imported_from_another_folder(shop, app):
    elsewhere = app("")
    assert elsewhere.run("status", "globally").returncode == 2
    done = elsewhere.run("status", "globally", "--path", str(shop.folder))
    assert done.returncode == 0
