"""The actor's own connection broke during its body: what the body did, or raised, counts."""

import contextlib

import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import RequeueImmediately, durable_actor

pytestmark = pytest.mark.failure(23)

BREAK = {
    "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
    "mysql": "KILL CONNECTION_ID()",
}


@pytest.fixture(params=["postgres", "mariadb"])
def server_url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def open_database():
    """``open_database(url, **params)``: the application's."""
    made = []

    def make(url, **params):
        made.append(connect(url, **params))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def broken(server_url):
    """``broken(database)``: the server ends this thread's connection, and the actor notices."""

    def make(database):
        with pytest.raises(peewee.OperationalError):
            database.execute_sql(BREAK[server_url.partition(":")[0]])

    return make


@pytest.fixture
def ended(ran, work, audit_of):
    """``ended(message)``: how often the job ran, what became of its audit, and how often it failed."""

    def run(message):
        work()
        audit = audit_of(message)
        return len(ran), audit.state, audit.failure_count

    return run


def test_a_job_that_returned_is_completed(
    stub_broker, server_url, open_database, make_durable, broken, ran, ended
):
    database = open_database(server_url)
    make_durable(stub_broker, database)

    @durable_actor(max_retries=1, min_backoff=1)
    def charge():
        ran.append(1)
        database.connect(reuse_if_open=True)
        broken(database)
        database.close()

    assert ended(charge.send()) == (1, "completed", 0)


def test_a_job_that_leaves_the_broken_connection_open_is_completed(
    stub_broker, server_url, open_database, make_durable, broken, ran, ended
):
    database = open_database(server_url)
    make_durable(stub_broker, database)

    @durable_actor(max_retries=1, min_backoff=1)
    def charge():
        ran.append(1)
        database.connect(reuse_if_open=True)
        broken(database)

    try:
        assert ended(charge.send()) == (1, "completed", 0)
    finally:
        database.close()


def test_a_transaction_left_on_it_is_no_failure_and_the_thread_has_a_new_connection(
    stub_broker, server_url, open_database, make_durable, broken, ran, work, audit_of
):
    database = open_database(server_url)
    make_durable(stub_broker, database)

    @durable_actor(max_retries=1, min_backoff=1)
    def charge():
        database.connect()
        database.atomic().__enter__()
        broken(database)

    @durable_actor(max_retries=0)
    def ship():
        with database.connection_context():  # which is refused on an open one
            ran.append(database.execute_sql("SELECT 42").fetchone())

    messages = [charge.send(), ship.send()]
    work()
    assert ran == [(42,)]
    assert {(audit_of(m).state, audit_of(m).failure_count) for m in messages} == {("completed", 0)}


def test_a_pool_gets_its_place_back(
    stub_broker, server_url, open_database, make_durable, broken, ran, work, audit_of
):
    scheme, _, rest = server_url.partition("://")
    database = open_database(f"{scheme}+pool://{rest}", max_connections=1, timeout=1)
    make_durable(stub_broker, database)

    @durable_actor(max_retries=0)
    def charge():
        database.connect()
        database.atomic().__enter__()
        broken(database)

    @durable_actor(max_retries=0)
    def ship():
        with database.connection_context():
            ran.append(database.execute_sql("SELECT 42").fetchone())

    messages = [charge.send(), ship.send()]
    work()
    assert ran == [(42,)]
    assert {audit_of(message).state for message in messages} == {"completed"}


def test_what_the_body_raised_counts(
    stub_broker, server_url, open_database, make_durable, broken, work, audit_of
):
    database = open_database(server_url)
    make_durable(stub_broker, database)

    @durable_actor(max_retries=0)
    def charge():
        database.connect()
        database.atomic().__enter__()
        broken(database)
        raise RequeueImmediately

    @durable_actor(max_retries=0)
    def ship():
        database.connect()
        database.atomic().__enter__()
        broken(database)
        raise ValueError("no stock")

    charged, shipped = charge.send(), ship.send()
    work()
    assert (audit_of(charged).requeue_count, audit_of(charged).failure_count) == (1, 0)
    assert audit_of(shipped).last_error == "ValueError: no stock"


def test_one_that_was_closed_behind_peewees_back_is_no_failure(
    stub_broker, sqlite_db, make_durable, ran, ended
):
    make_durable(stub_broker, sqlite_db)

    @durable_actor(max_retries=1, min_backoff=1)
    def charge():
        ran.append(1)
        sqlite_db.connect()
        sqlite_db.connection().close()

    try:
        assert ended(charge.send()) == (1, "completed", 0)
    finally:
        with contextlib.suppress(peewee.PeeweeException):
            sqlite_db.close()
