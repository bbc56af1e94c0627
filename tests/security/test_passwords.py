"""The password of the database is in no log and no error, whatever is wrong with its URL or its server."""

import threading
from contextlib import closing
from urllib.parse import quote

import psycopg
import pymysql
import pytest

from dramatiq_durable import (
    AuditWriteFailed,
    DurableMiddleware,
    Monitor,
    durable_actor,
)
from tests.support.servers import free_port

NAME, PASSWORD = "sh@p:keeper", "p@ss/w:rd"
WRONG = "hunter2"

pytestmark = pytest.mark.failure(51)


@pytest.fixture
def guarded_postgres_url(postgres_server, postgres_url, eventually):
    """A database of a user whose name and password have to be encoded in a URL."""
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f'host all "{NAME}" 127.0.0.1/32 scram-sha-256\n{before}')

    def login(password):
        address = {"host": "127.0.0.1", "port": postgres_server.port, "dbname": "postgres"}
        try:
            psycopg.connect(**address, user=NAME, password=password).close()
        except psycopg.OperationalError:
            return False
        return True

    with closing(psycopg.connect(postgres_url, autocommit=True)) as admin:
        admin.execute(f"CREATE USER \"{NAME}\" PASSWORD '{PASSWORD}'".encode())
        admin.execute(f'GRANT ALL ON SCHEMA public TO "{NAME}"'.encode())
        admin.execute("SELECT pg_reload_conf()")
        eventually(lambda: not login(WRONG))
        assert login(PASSWORD)
    address = postgres_url.split("@")[1]
    yield f"postgresql://{quote(NAME, safe='')}:{quote(PASSWORD, safe='')}@{address}"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as admin:
        admin.execute(f'DROP OWNED BY "{NAME}"'.encode())
        admin.execute(f'DROP USER "{NAME}"'.encode())
        rules.write_text(before)
        admin.execute("SELECT pg_reload_conf()")


@pytest.fixture
def guarded_mariadb_url(mariadb_server, mariadb_url):
    """A database of a user whose name and password have to be encoded in a URL."""

    def execute(*statements):
        address = {"host": "127.0.0.1", "port": mariadb_server.port, "user": "root"}
        with closing(pymysql.connect(**address, autocommit=True)) as admin:
            for statement in statements:
                admin.cursor().execute(statement)

    database = mariadb_url.rpartition("/")[2]
    execute(
        f"CREATE USER '{NAME}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {database}.* TO '{NAME}'@'127.0.0.1'",
    )
    address = mariadb_url.split("@")[1]
    yield f"mysql://{quote(NAME, safe='')}:{quote(PASSWORD, safe='')}@{address}"
    execute(f"DROP USER '{NAME}'@'127.0.0.1'")


@pytest.fixture(params=["postgres", "mariadb"])
def guarded_url(request):
    url: str = request.getfixturevalue(f"guarded_{request.param}_url")
    return url


@pytest.fixture
def durable_at(stub_broker):
    """``durable_at(url)``: a DurableMiddleware of the test's broker."""
    made = []

    def make(url):
        made.append(DurableMiddleware(url))
        stub_broker.add_middleware(made[-1])
        return made[-1]

    yield make
    for durable in made:
        durable.store.connections.close()


@pytest.fixture
def everything_said(stub_broker, durable_at, command_on, running_worker, logged, shown, eventually):
    """``everything_said(url)``: what sender, worker, monitor and commands say of a database that does not serve them."""

    def ask(url):
        durable = durable_at(url)
        # A short lease: so long the worker tries to write, at its end, that it did not run the job.
        short = {"job_timeout": 1_000, "heartbeat_interval": 25, "max_retries": 0}
        job = durable_actor(lambda: None, actor_name="job", **short)
        errors = []
        for use in (durable.create_tables, job.send, Monitor(stub_broker).run_once):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is looked at
                use()
            errors.append(caught.value)
        assert isinstance(errors[1], AuditWriteFailed)
        watcher = Monitor(stub_broker, interval=0.01)
        running = threading.Thread(target=watcher.run)
        running.start()
        eventually(lambda: "The monitor waits" in logged() or "This pass failed" in logged())
        watcher.stop()
        running.join()
        waiting = job.message()
        stub_broker.queues["default"].put(waiting.encode())  # sent before its actor was durable
        with running_worker(threads=1):
            heard = (f"Message {waiting.message_id} waits", "could not claim")
            eventually(lambda: any(each in logged() for each in heard))
        said = [shown(error) for error in errors]
        command = command_on(stub_broker)
        for line in ("schema create", "status", "list --json", "monitor --once", "purge -y"):
            name = " ".join(word for word in line.split() if word[0] != "-")
            options = [word for word in line.split() if word[0] == "-"]
            done = command(name, *options, "--verbose")
            assert done.exit_code in {1, 3}
            said.append(done.output)
        said += [repr(durable), str(durable), repr(durable.options), repr(durable.database)]
        return "\n".join([*said, logged()])

    return ask


def test_a_percent_encoded_password_works(guarded_url, stub_broker, durable_at, work, logged):
    durable = durable_at(guarded_url)
    durable.create_tables()
    job = durable_actor(lambda: None, actor_name="job")
    message = job.send()
    work()
    assert durable.store.get(message.message_id).state == "completed"
    assert PASSWORD not in logged()
    assert quote(PASSWORD, safe="") not in logged()


def test_a_wrong_password_is_not_shown(guarded_url, everything_said):
    said = everything_said(guarded_url.replace(quote(PASSWORD, safe=""), WRONG))
    assert "Traceback" in said
    assert WRONG not in said


def test_the_password_is_not_shown_when_the_database_does_not_exist(guarded_url, everything_said):
    said = everything_said(f"{guarded_url}_of_another_name")
    assert "Traceback" in said
    assert PASSWORD not in said
    assert quote(PASSWORD, safe="") not in said


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres+pool", "mysql", "mysql+pool", "mariadb"]
)
@pytest.mark.parametrize("address", ["127.0.0.1:{port}/shop", "no host/shop"])
def test_the_password_is_not_shown_when_no_server_is_there(scheme, address, everything_said):
    said = everything_said(f"{scheme}://shop:{WRONG}@{address.format(port=free_port())}")
    assert "Traceback" in said
    assert WRONG not in said


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_the_password_is_not_shown_with_a_parameter_that_the_driver_does_not_know(
    scheme, everything_said
):
    said = everything_said(f"{scheme}://shop:{WRONG}@127.0.0.1:{free_port()}/shop?nonsense=1")
    assert "nonsense" in said
    assert WRONG not in said
