"""What the command says when the database does not serve it."""

import logging

import peewee
import psycopg
import pytest
from dramatiq.brokers.stub import StubBroker
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware, durable_actor
from tests.support.servers import free_port

# PyMySQL says this of Peewee, which passes the password of a URL by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:'passwd' is deprecated:DeprecationWarning")

COMMANDS = [
    "schema create",
    "schema check",
    "schema migrate",
    "status",
    "list",
    "show an-id",
    "retry an-id",
    "retry --actor charge --yes",
    "cancel an-id",
    "purge --yes",
    "monitor --once",
    "monitor --dry-run",
]


@pytest.fixture
def run_on(command_on):
    """``run_on(url, "retry an-id")``: a command with a broker whose audits are at *url*."""
    made = []

    def run(url, line, *args):
        broker = StubBroker()
        durable = DurableMiddleware(url)
        made.append(durable)
        broker.add_middleware(durable)
        words = line.split()
        name = " ".join(words[:2]) if words[0] == "schema" else words[0]
        return command_on(broker)(name, *words[len(name.split()) :], *args)

    yield run
    for durable in made:
        if getattr(durable.database, "obj", durable.database) is not None:
            durable.store.connections.close()


@pytest.fixture
def charge_at(make_durable):
    """``charge_at(url, message_id)``: a completed, old job there, and one that waits, both with ids of that beginning."""

    def write(url, message_id):
        broker = StubBroker()
        durable = make_durable(broker, connect(url))
        charge = durable_actor(lambda: None, actor_name="charge", broker=broker)
        for each in (message_id, f"{message_id}-completed"):
            broker.enqueue(charge.message().copy(message_id=each))
        durable.database.execute_sql(
            "UPDATE durable_audits SET state = 'completed', finished_at = 1, scheduled_at = 1, due_at = NULL"
            f" WHERE message_id = '{message_id}-completed'"
        )
        durable.database.close()

    return write


def refused(scheme):
    return f"{scheme}://shop:hunter2@127.0.0.1:{free_port()}/shop"


def assert_one_line(done, exit_code, *said):
    assert (done.exit_code, done.stdout) == (exit_code, "")
    [line] = done.stderr.splitlines()
    for each in said:
        assert each in line
    return line


@pytest.mark.failure(51)
@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_does_not_run_is_said_in_one_line(run_on, scheme, line):
    said = assert_one_line(run_on(refused(scheme), line), 3, "database", "check")
    assert "hunter2" not in said


@pytest.mark.parametrize("line", COMMANDS)
def test_a_file_that_cannot_be_opened_is_a_database_that_does_not_answer(run_on, tmp_path, line):
    url = f"sqlite:///{tmp_path / 'no such folder' / 'jobs.db'}"
    assert_one_line(run_on(url, line), 3, "database", "check")


@pytest.mark.failure(51)
def test_a_refused_password_is_not_shown(run_on, mariadb_url):
    done = run_on(mariadb_url.replace("root@", "root:hunter2@"), "status")
    assert "hunter2" not in assert_one_line(done, 3, "database")


@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_a_database_that_does_not_exist_is_one_that_does_not_answer(run_on, database_url):
    done = run_on(f"{database_url}_of_another_name", "status")
    assert_one_line(done, 3, "database", "check")


@pytest.mark.failure(51)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_the_traceback_on_demand_shows_no_password_either(run_on, scheme, caplog):
    with caplog.at_level(logging.DEBUG):
        done = run_on(refused(scheme), "status", "--verbose")
    assert done.exit_code == 3
    assert "Traceback" in caplog.text
    assert "hunter2" not in caplog.text + done.stderr


@pytest.mark.parametrize("line", [*COMMANDS, "schema sql"])
def test_a_proxy_without_its_database_is_said_with_what_is_to_be_done(run_on, line):
    assert_one_line(run_on(peewee.DatabaseProxy(), line), 1, "DatabaseProxy", "initialize()")


@pytest.mark.failure(39)
@pytest.mark.parametrize("line", ["cancel an-id", "purge --yes"])
def test_an_audit_that_is_locked_is_said_with_what_is_to_be_done(
    run_on, charge_at, postgres_url, line
):
    with psycopg.connect(postgres_url) as other:
        charge_at(postgres_url, "an-id")
        other.execute("UPDATE durable_audits SET epoch = epoch")
        assert_one_line(run_on(postgres_url, line), 3, "locked", "try again")


@pytest.mark.failure(51)
def test_a_parameter_that_the_driver_does_not_know_is_said_in_one_line(run_on):
    done = run_on(f"{refused('postgresql')}?nonsense=1", "status")
    said = assert_one_line(done, 1, "nonsense", "database URL")
    assert "hunter2" not in said


@pytest.mark.failure(43)
@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("schema")])
def test_a_missing_table_is_said_with_the_command_that_makes_it(run_on, sqlite_url, line):
    done = run_on(sqlite_url, line)
    assert_one_line(done, 1, "table", "`dramatiq-durable schema create shop:broker`")


@pytest.mark.failure(43)
@pytest.mark.parametrize("line", ["status", "monitor --once"])
def test_a_missing_table_is_told_from_a_missing_server_on_every_database(
    run_on, database_url, line
):
    assert_one_line(run_on(database_url, line), 1, "schema create shop:broker")


@pytest.mark.failure(43)
def test_a_table_that_lacks_a_column_is_said_with_what_is_to_be_done(run_on, sqlite_url, sqlite_db):
    assert run_on(sqlite_url, "schema create").exit_code == 0
    sqlite_db.execute_sql("ALTER TABLE durable_audits DROP COLUMN last_error")
    assert_one_line(run_on(sqlite_url, "list"), 1, "table", "version")


@pytest.mark.failure(43)
def test_create_does_not_call_a_table_ready_that_lacks_a_column(run_on, sqlite_url, sqlite_db):
    assert run_on(sqlite_url, "schema create").exit_code == 0
    sqlite_db.execute_sql("ALTER TABLE durable_audits DROP COLUMN last_error")
    done = run_on(sqlite_url, "schema create")
    said = assert_one_line(done, 1, "version")
    # It is what one has just run.
    assert "run `dramatiq-durable schema create" not in said


@pytest.mark.parametrize(
    ("option", "said"), [("retention=-5", "retention"), ("job_timout=5", "job_timout")]
)
def test_an_option_that_makes_no_sense_is_said_and_nothing_else(app, option, said):
    shop = app(
        f"""
        from dramatiq.brokers.stub import StubBroker
        from dramatiq_durable import DurableMiddleware

        broker = StubBroker()
        broker.add_middleware(DurableMiddleware("sqlite:///app.db", {option}))
        """
    )
    done = shop.run("status", "app:broker")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: DurableMiddleware")
    assert said in line
    assert "BROKER is" not in line


@pytest.mark.failure(51)
@pytest.mark.parametrize("url", ["nonsense://shop:hunter2@host/db", "mysql://shop:hunter2@host:x/"])
def test_a_url_that_makes_no_sense_is_an_import_that_failed(app, url):
    shop = app(
        """
        from dramatiq.brokers.stub import StubBroker
        from dramatiq_durable import DurableMiddleware

        broker = StubBroker()
        broker.add_middleware(DurableMiddleware())
        """,
        DRAMATIQ_DURABLE_DATABASE_URL=url,
    )
    done = shop.run("status", "app:broker")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "database URL" in done.stderr
    verbose = shop.run("status", "app:broker", "--verbose").stderr
    assert "Traceback" in verbose
    assert "hunter2" not in done.stderr + verbose
