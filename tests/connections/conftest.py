"""Somebody at the database's console, and servers that a test may stop."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import dramatiq
import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware, current_audit
from tests.support.databases import MariadbServer, PostgresServer

_CLIENTS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}

_DISCONNECT = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}


class Console:
    """A connection of somebody else's to the database at *url*."""

    def __init__(self, url):
        self.scheme = urlsplit(url).scheme
        self.database = connect(url, thread_safe=False)

    def execute(self, sql, *params):
        return self.database.execute_sql(sql, params)

    def one(self, sql, *params):
        """The only value of the only row."""
        return self.execute(sql, *params).fetchone()[0]

    def clients(self):
        """The server's ids of the other connections to this database."""
        return [row[0] for row in self.execute(_CLIENTS[self.scheme]).fetchall()]

    def disconnect_all(self):
        """Have the server close all other connections to this database."""
        clients = self.clients()
        for client in clients:
            with suppress(peewee.OperationalError):  # it has gone by itself
                self.execute(_DISCONNECT[self.scheme], client)
        return len(clients)

    def close(self):
        if not self.database.is_closed():
            self.database.close()


@pytest.fixture
def console_of():
    """``console_of(url)``: a :class:`Console`."""
    made = []

    def make(url):
        made.append(Console(url))
        return made[-1]

    yield make
    for console in made:
        console.close()


@contextmanager
def _stoppable(make):
    server = make()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="package")
def _stoppable_postgres():
    with _stoppable(PostgresServer) as server:
        yield server


@pytest.fixture(scope="package")
def _stoppable_mariadb():
    with _stoppable(MariadbServer) as server:
        yield server


@pytest.fixture(params=["postgres", "mariadb"])
def stoppable(request):
    """A database server that runs; the tests of this folder may stop and start it."""
    server = request.getfixturevalue(f"_stoppable_{request.param}")
    if not _runs(server):
        server.start()
    yield server
    if not _runs(server):
        server.start()


def _runs(server):
    try:
        return bool(server.pid)
    except AssertionError:
        return False


@pytest.fixture
def stoppable_url(stoppable):
    with stoppable.fresh() as url:
        yield url
        if not _runs(stoppable):
            stoppable.start()


@pytest.fixture(params=["postgres", "mariadb"])
def server_url(request):
    """An empty database on a server that many share."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def in_threads():
    """``in_threads(number, fn)``: run ``fn(0)``, ``fn(1)``, … at once; what they return."""

    def run(number, fn):
        together = threading.Barrier(number)

        def target(index):
            together.wait()
            return fn(index)

        with ThreadPoolExecutor(number) as pool:
            futures = [pool.submit(target, index) for index in range(number)]
            return [future.result(timeout=60) for future in futures]

    return run


@pytest.fixture
def beat():
    """``beat(times=1)``, in an actor: renew its lease."""

    def beat(times=1):
        audit = current_audit()
        assert audit is not None
        for _ in range(times):
            audit.heartbeat()

    return beat


class Note(peewee.Model):
    text = peewee.TextField()


class _ClosesAtTheEnd(dramatiq.Middleware):
    """Closes what actors have left open in a thread, before that ends."""

    def __init__(self, db):
        self.db = db

    def before_worker_thread_shutdown(self, broker, thread):
        self.db.close()


@pytest.fixture
def durable_beside(stub_broker, db, make_durable):
    """A DurableMiddleware on an application's database, in which its actors write Notes."""
    stub_broker.add_middleware(_ClosesAtTheEnd(db))
    with Note.bind_ctx(db):
        db.create_tables([Note])
        db.close()
        yield make_durable(stub_broker, db)


@pytest.fixture
def notes(db):
    """``notes()``: the texts that everybody sees."""

    def read():
        with db.connection_context():
            return [note.text for note in Note.select().order_by(Note.text)]

    return read


@pytest.fixture
def table_at():
    """``table_at(url, **parameters)``: the table of audits there, which is made if it is missing."""
    made = []

    def make(url, **parameters):
        durable = DurableMiddleware(connect(url, **parameters))
        made.append(durable)
        durable.create_tables()
        durable.store.connections.close()
        return durable.store.table

    yield make
    for durable in made:
        durable.store.connections.close()


@pytest.fixture
def in_the_background():
    """``in_the_background(fn)``: run it in a thread; its Future."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit
