"""Every way in which an application may have its Peewee database."""

import contextlib
import gc
import itertools
import sqlite3
from typing import Any

import peewee
import pytest
from playhouse.db_url import connect
from playhouse.shortcuts import ReconnectMixin
from playhouse.sqliteq import SqliteQueueDatabase

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, current_audit, durable_actor
from dramatiq_durable.errors import OptionError

from .conftest import Note

pytestmark = pytest.mark.failure(46)

THREADS, POOL = 8, 2

_numbers = itertools.count(1)


@pytest.fixture
def live(stub_broker, make_durable, monitor, clock, work, audits):
    """``live(database)``: jobs run, fail, are lost, are recovered, by many threads; all complete."""

    def run(database, threads=4):
        durable = make_durable(stub_broker, database)
        failed, ran = set(), []

        @durable_actor(max_retries=1, min_backoff=1, actor_name=f"charge_{next(_numbers)}")
        def charge(order_id):
            audit = current_audit()
            assert audit is not None
            audit.heartbeat()
            if order_id % 3 == 0 and order_id not in failed:
                failed.add(order_id)
                raise ValueError
            ran.append(order_id)

        for order_id in range(4):
            charge.send(order_id)
        stub_broker.flush_all()
        clock.move(hours=1)
        assert monitor.run_once().recovered == 4
        for order_id in range(4, 8):
            charge.send(order_id)
        work(threads=threads)
        assert sorted(ran) == list(range(8))
        assert [audit.state for audit in audits(durable)] == ["completed"] * 8
        return durable

    return run


@pytest.fixture
def pool_url(database_url):
    return database_url.replace("://", "+pool://", 1)


@pytest.fixture
def pool(pool_url):
    """A pool of two connections, for which the application waits."""
    # Without it an application's pool of SQLite connections is of no use to several threads.
    options = {"check_same_thread": False} if pool_url.startswith("sqlite") else {}
    database = connect(pool_url, max_connections=POOL, timeout=30, **options)
    yield database
    database.close_all()


def test_a_pool_whose_connections_are_all_taken_holds_nobody_up(pool, live, in_threads):
    def take(index):
        database = pool
        database.connect()
        return database.connection()

    in_threads(POOL, take)  # and never give them back
    live(pool, THREADS)


def test_more_threads_than_the_pool_has_connections_wait_for_it(
    pool, stub_broker, make_durable, work, audits
):
    durable = make_durable(stub_broker, pool)
    with Note.bind_ctx(pool):
        with pool.connection_context():
            pool.create_tables([Note])

        @durable_actor(max_retries=0)
        def write(index):
            with pool.connection_context(), pool.atomic():
                Note.create(text=str(index))
                inner.send()

        @durable_actor(max_retries=0)
        def inner():
            audit = current_audit()
            assert audit is not None
            with audit.transaction():
                Note.create(text="inner")

        for index in range(2 * THREADS):
            write.send(index)
        work(threads=THREADS)
        with pool.connection_context():
            assert Note.select().count() == 4 * THREADS
    assert {(a.state, a.failure_count) for a in audits(durable)} == {("completed", 0)}


def test_a_proxy_may_get_its_database_after_the_actors_are_declared(
    stub_broker, db, make_durable, work, audits
):
    proxy: Any = peewee.DatabaseProxy()
    durable = DurableMiddleware(proxy)
    stub_broker.add_middleware(durable)
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    with pytest.raises(OptionError, match="initialize"):
        charge.send(0)

    proxy.initialize(db)
    durable.create_tables()
    charge.send(1)
    with contextlib.suppress(ZeroDivisionError), db.atomic():
        charge.send(2)
        raise ZeroDivisionError
    with proxy.atomic():
        charge.send(3)
        assert len(audits(durable)) == 1
    work(threads=4)
    assert sorted(ran) == [1, 3]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2
    durable.store.connections.close()


def test_a_database_may_be_named_after_the_actors_are_declared(
    stub_broker, database_url, make_durable, work, audits
):
    known = connect(database_url)
    database = type(known)(None)
    durable = DurableMiddleware(database)
    stub_broker.add_middleware(durable)
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    with pytest.raises(AuditWriteFailed):
        charge.send(0)

    database.init(known.database, **known.connect_params)
    durable.create_tables()
    charge.send(1)
    work(threads=4)
    assert ran == [1]
    assert [audit.state for audit in audits(durable)] == ["completed"]
    durable.store.connections.close()


@pytest.mark.parametrize("given", ["sqlite:///:memory:", peewee.SqliteDatabase(":memory:")])
def test_an_in_memory_database_is_one_for_all_threads(given, live, in_threads, audits):
    durable = live(given, THREADS)
    in_threads(THREADS, lambda _: durable.store.tallies())
    assert len(audits(durable)) == 8


@pytest.mark.parametrize("name", ["with spaces.db", "größe 100%.db", "a?b&c=d#e.db"])
def test_a_file_of_sqlite_may_have_any_name(name, tmp_path, live):
    folder = tmp_path / "a folder"
    folder.mkdir()
    live(peewee.SqliteDatabase(folder / name))
    assert (folder / name).stat().st_size
    assert {file.name.removesuffix("-wal").removesuffix("-shm") for file in folder.iterdir()} == {
        name
    }


def test_a_url_may_name_a_file_with_spaces_or_one_in_the_working_folder(
    tmp_path, monkeypatch, live
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    live("sqlite:///a folder/with spaces.db")
    assert (tmp_path / "a folder" / "with spaces.db").stat().st_size


def journal_mode(path):
    with contextlib.closing(peewee.SqliteDatabase(path)) as database:
        return database.execute_sql("PRAGMA journal_mode").fetchone()[0]


@pytest.mark.parametrize(
    ("pragmas", "mode"),
    [
        ({}, "wal"),
        ({"foreign_keys": 1, "synchronous": 1}, "wal"),
        ({"journal_mode": "delete"}, "delete"),
        ([("journal_mode", "truncate"), ("cache_size", -4000)], "delete"),
    ],
)
def test_sqlite_writes_ahead_unless_the_application_says_otherwise(pragmas, mode, tmp_path, live):
    path = tmp_path / "test.db"
    live(peewee.SqliteDatabase(path, pragmas=pragmas))
    assert journal_mode(path) == mode


def test_a_queue_in_front_of_sqlite_works(tmp_path, live):
    database = SqliteQueueDatabase(str(tmp_path / "test.db"), autostart=True)
    live(database)
    assert database.stop()


def test_a_database_object_that_is_not_thread_safe_works(database_url, live):
    live(connect(database_url, thread_safe=False))


def test_extensions_of_postgresql_work(postgres_url, live):
    live(connect(postgres_url.replace("postgresql", "postgresqlext+pool", 1)))


class Reconnecting(ReconnectMixin, peewee.MySQLDatabase):  # type: ignore[misc]
    """As an application may have written it."""


def test_a_mysql_database_that_reconnects_by_itself_works(mariadb_url, live):
    plain = connect(mariadb_url)
    live(Reconnecting(plain.database, **plain.connect_params))


@pytest.mark.parametrize("mode", ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES,TRADITIONAL", "ORACLE"])
def test_mysql_may_be_in_any_mode(mariadb_url, live, mode):
    live(connect(mariadb_url, sql_mode=mode))


@pytest.mark.parametrize(
    "level", ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
)
def test_each_isolation_level_will_do(server_url, live, level):
    if server_url.startswith("mysql"):
        option = {"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"}
    else:
        words = level.lower().replace(" ", "\\ ")
        option = {"options": f"-c default_transaction_isolation={words}"}
    live(connect(server_url, **option))


def test_a_url_has_its_user_and_password_percent_encoded(mariadb_url, console_of, live):
    console = console_of(mariadb_url)
    console.execute("CREATE USER 'us@er'@'%%' IDENTIFIED BY 'p@ss/w:rd?#%%'")
    console.execute("GRANT ALL ON *.* TO 'us@er'@'%%'")
    try:
        live(mariadb_url.replace("root@", "us%40er:p%40ss%2Fw%3Ard%3F%23%25@"))
    finally:
        console.execute("DROP USER 'us@er'@'%%'")


@pytest.mark.parametrize("name", [":memory:", "jobs.db"])
def test_our_connections_are_closed_when_the_middleware_is_dropped(tmp_path, name):
    database = peewee.SqliteDatabase(name if name == ":memory:" else tmp_path / name)
    durable = DurableMiddleware(database)
    durable.create_tables()
    connection = durable.store.connections.run(lambda lane: lane.connection())
    del durable
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
