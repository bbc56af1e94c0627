"""What the databases say when something is wrong, and what the middleware makes of it."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor
from dramatiq_durable.errors import AuditLocked, DatabaseUnreachable

pytestmark = pytest.mark.failure(39)


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def server_durable(stub_broker, server_url, make_durable):
    return make_durable(stub_broker, server_url)


@pytest.fixture
def postgres_durable(stub_broker, postgres_url, make_durable):
    return make_durable(stub_broker, postgres_url)


@pytest.fixture
def console(console_of, server_url):
    """Somebody else, at a table ``t`` with the rows 1 and 2."""
    console = console_of(server_url)
    console.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    console.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
    return console


class Attempts:
    """A statement that *fail* makes fail the first time."""

    def __init__(self, fail):
        self.fail = fail
        self.errors = []

    def __call__(self, lane):
        try:
            if not self.errors:
                self.fail(lane)
            return lane.execute_sql("SELECT 42").fetchone()[0]
        except peewee.PeeweeException as error:
            self.errors.append(error)
            raise


def test_the_victim_of_a_deadlock_is_repeated(server_durable, console):
    # What makes the other one no victim: PostgreSQL's looks first, MariaDB's has less to undo.
    console.execute("CREATE TABLE ballast (n INTEGER)")
    theirs, ours = threading.Event(), threading.Event()

    def embrace(lane):
        assert theirs.wait(10)
        if console.scheme == "postgresql":
            lane.execute_sql("SET deadlock_timeout = '200ms'")
        with lane.atomic():
            lane.execute_sql("UPDATE t SET n = n + 1 WHERE id = 1")
            ours.set()
            lane.execute_sql("UPDATE t SET n = n + 1 WHERE id = 2")

    def other(_):
        console.execute("BEGIN")
        console.execute("INSERT INTO ballast VALUES " + ", ".join(["(1)"] * 100))
        console.execute("UPDATE t SET n = n + 1 WHERE id = 2")
        theirs.set()
        assert ours.wait(10)
        console.execute("UPDATE t SET n = n + 1 WHERE id = 1")
        console.execute("COMMIT")

    statement = Attempts(embrace)
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(other, 0)
        assert server_durable.store.connections.run(statement) == 42
        finished.result(timeout=10)
    [error] = statement.errors
    assert "eadlock" in str(error)


def test_a_serialization_failure_is_repeated(postgres_durable, postgres_url, console_of):
    console = console_of(postgres_url)
    console.execute("CREATE TABLE t (n INTEGER)")
    console.execute("INSERT INTO t VALUES (0)")

    def read_and_write(lane):
        with lane.atomic():
            lane.execute_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            lane.execute_sql("SELECT n FROM t").fetchall()
            console.execute("UPDATE t SET n = 1")
            lane.execute_sql("UPDATE t SET n = 2")

    statement = Attempts(read_and_write)
    assert postgres_durable.store.connections.run(statement) == 42
    [error] = statement.errors
    assert error.orig.sqlstate == "40001"


def test_a_statement_that_was_cancelled_is_repeated(postgres_durable):
    def take_too_long(lane):
        with lane.atomic():
            lane.execute_sql("SET LOCAL statement_timeout = 20")
            lane.execute_sql("SELECT pg_sleep(10)")

    statement = Attempts(take_too_long)
    assert postgres_durable.store.connections.run(statement) == 42
    assert len(statement.errors) == 1


def test_a_lock_that_is_let_go_is_waited_for(server_durable, console):
    def wait_for_it(lane):
        console.execute("BEGIN")
        console.execute("UPDATE t SET n = 1 WHERE id = 1")
        try:
            lane.execute_sql("UPDATE t SET n = 2 WHERE id = 1")
        finally:
            console.execute("COMMIT")

    statement = Attempts(wait_for_it)
    assert server_durable.store.connections.run(statement) == 42
    [error] = statement.errors
    assert error.orig.args[0] == 1205 or error.orig.sqlstate == "55P03"


def test_a_lock_that_stays_is_a_locked_audit(server_durable, console):
    console.execute("BEGIN")
    console.execute("UPDATE t SET n = 1 WHERE id = 1")
    reserved = server_durable.store.connections.reserved()  # which tries least often
    with pytest.raises(AuditLocked):
        reserved.run(lambda lane: lane.execute_sql("UPDATE t SET n = 2 WHERE id = 1"))
    console.execute("ROLLBACK")


def test_a_busy_sqlite_is_waited_for(stub_broker, sqlite_url, make_durable, work, audits):
    durable = make_durable(stub_broker, connect(sqlite_url, timeout=0.01))
    writer = sqlite3.connect(urlsplit(sqlite_url).path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed) as caught:
        charge.send()
    assert isinstance(caught.value.__cause__, DatabaseUnreachable)
    assert "locked" in str(caught.value.__cause__.__cause__)

    writer.execute("ROLLBACK")
    charge.send()
    work()
    assert [audit.state for audit in audits(durable)] == ["completed"]

    def while_it_is_busy(lane):
        writer.execute("BEGIN IMMEDIATE")
        try:
            lane.execute_sql("UPDATE durable_audits SET epoch = epoch")
        finally:
            writer.execute("ROLLBACK")

    statement = Attempts(while_it_is_busy)
    assert durable.store.connections.run(statement) == 42
    assert len(statement.errors) == 1
    writer.close()


KILL_MYSELF = {
    "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
    "mysql": "KILL CONNECTION_ID()",
}


def test_a_statement_whose_connection_breaks_is_tried_on_a_new_one(server_durable, console):
    statement = Attempts(lambda lane: lane.execute_sql(KILL_MYSELF[console.scheme]))
    assert server_durable.store.connections.run(statement) == 42
    assert len(statement.errors) == 1


def test_what_a_constraint_refuses_is_not_repeated(durable, db):
    db.execute_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    db.execute_sql("INSERT INTO t VALUES (1)")
    db.close()
    statement = Attempts(lambda lane: lane.execute_sql("INSERT INTO t VALUES (1)"))
    with pytest.raises(peewee.IntegrityError):
        durable.store.connections.run(statement)
    assert len(statement.errors) == 1


def test_what_is_no_sql_is_not_repeated(durable):
    statement = Attempts(lambda lane: lane.execute_sql("SELEKT 1"))
    with pytest.raises((peewee.OperationalError, peewee.ProgrammingError)) as caught:
        durable.store.connections.run(statement)
    assert not isinstance(caught.value, DatabaseUnreachable)
    assert len(statement.errors) == 1


def no_server(url):
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(str(parts.port), "1")))


def no_database(url):
    return url + "_that_is_not_there"


def no_user(url):
    return url.replace("root@", "nobody@").replace("postgres@", "nobody@")


@pytest.mark.failure(4)
@pytest.mark.parametrize("wrong", [no_server, no_database, no_user])
def test_a_server_that_lets_nobody_in_is_unreachable(stub_broker, server_url, wrong):
    stub_broker.add_middleware(DurableMiddleware(wrong(server_url)))

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed) as caught:
        charge.send()
    assert isinstance(caught.value.__cause__, DatabaseUnreachable)


READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}


def test_a_database_that_has_become_read_only_is_unreachable(server_durable, console):
    def write(lane):
        lane.execute_sql(READ_ONLY[console.scheme])
        lane.execute_sql("UPDATE t SET n = 1")

    with pytest.raises(DatabaseUnreachable):
        server_durable.store.connections.run(write)
    # The connection is not kept.
    server_durable.store.connections.run(lambda lane: lane.execute_sql("UPDATE t SET n = 1"))


@pytest.mark.parametrize("database", ["garbage", "read only"])
def test_a_file_that_takes_no_audits_is_unreachable(stub_broker, tmp_path, make_durable, database):
    path = tmp_path / "test.db"
    if database == "garbage":
        path.write_bytes(b"no database" * 1_000)
        given = peewee.SqliteDatabase(path)
    else:
        make_durable(stub_broker, peewee.SqliteDatabase(path, pragmas={"journal_mode": "delete"}))
        stub_broker.middleware.pop()
        given = peewee.SqliteDatabase(
            f"file:{path}?mode=ro", uri=True, pragmas={"journal_mode": "delete"}
        )
    stub_broker.add_middleware(DurableMiddleware(given))

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed) as caught:
        charge.send()
    assert isinstance(caught.value.__cause__, DatabaseUnreachable)
