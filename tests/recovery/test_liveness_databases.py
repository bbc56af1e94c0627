"""Whatever happens to the table of monitors, jobs are recovered, on each database that it can happen to."""

import time
from contextlib import contextmanager

import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import Monitor

from .conftest import running

#: What a trigger does when a monitor writes that it is there, and how that is written.
HANGS = {
    "postgres": "WHILE NOT pg_try_advisory_xact_lock(1) LOOP PERFORM pg_sleep(0.05); END LOOP",
    "mariadb": "DO GET_LOCK('hangs', 600)",
}
FULL = {
    "postgres": "RAISE EXCEPTION USING ERRCODE = '53100'",
    "mariadb": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114",
}
READ_ONLY = {
    "postgres": "RAISE EXCEPTION USING ERRCODE = '25006'",
    "mariadb": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1836",
}


@pytest.fixture(params=["postgres", "mariadb"])
def database_url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def lose(stub_broker, durable, declare, clock):
    """``lose()``: send a message that the broker loses, and that is stale now."""
    charge = declare()

    def lose():
        charge.send(42)
        stub_broker.flush_all()
        clock.move(hours=1)

    return lose


@pytest.fixture
def recovered(stub_broker, eventually):
    """``recovered()``: wait until the broker has a message again."""
    return lambda: eventually(lambda: stub_broker.queues["default"].qsize() > 0)


@pytest.fixture
def on_insert(db, durable):
    """``on_insert(acts)``: what the database does when a monitor says for the first time that it is there."""

    def make(acts):
        if isinstance(db, peewee.MySQLDatabase):
            db.execute_sql(
                "CREATE TRIGGER acts BEFORE INSERT ON durable_monitors FOR EACH ROW "
                + acts["mariadb"]
            )
            return
        db.execute_sql(
            "CREATE FUNCTION acts() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {acts['postgres']}; RETURN NEW; END $$"
        )
        db.execute_sql(
            "CREATE TRIGGER acts BEFORE INSERT ON durable_monitors FOR EACH ROW EXECUTE FUNCTION acts()"
        )

    return make


def hanging(db):
    """How many connections hang there."""
    if isinstance(db, peewee.MySQLDatabase):
        count = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'"
    else:
        count = "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%%monitors%%' AND state = 'active'"
    return db.execute_sql(count).fetchone()[0]


@contextmanager
def hang(db):
    """What HANGS hangs until the block ends."""
    if isinstance(db, peewee.MySQLDatabase):
        take, release = "SELECT GET_LOCK('hangs', 0)", "DO RELEASE_LOCK('hangs')"
    else:
        take, release = "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"
    db.execute_sql(take).fetchone()
    yield
    db.execute_sql(release)


@contextmanager
def locked(url):
    """Somebody changes the table of monitors, and takes his time."""
    somebody = connect(url, thread_safe=False)
    if isinstance(somebody, peewee.MySQLDatabase):
        somebody.execute_sql("LOCK TABLES durable_monitors WRITE")
    else:
        somebody.begin()
        somebody.execute_sql("LOCK TABLE durable_monitors IN ACCESS EXCLUSIVE MODE")
    try:
        yield
    finally:
        somebody.close()


def test_while_its_table_is_locked(
    stub_broker, durable, lose, recovered, database_url, said, eventually, monkeypatch
):
    for pause in ("WRITTEN_EVERY", "TRIED_EVERY"):
        monkeypatch.setattr(f"dramatiq_durable.liveness.{pause}", 0.0)
    with running(Monitor(stub_broker, interval=0.01)):
        eventually(durable.monitors.seen)
        with locked(database_url):
            for _ in range(2):
                lose()
                recovered()
            eventually(said)
    [warning] = said()
    assert "durable_monitors cannot be written" in warning


@pytest.mark.parametrize("acts", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_when_its_table_takes_nothing(
    stub_broker, lose, recovered, on_insert, acts, said, eventually
):
    on_insert(acts)
    with running(Monitor(stub_broker, interval=0.01)):
        for _ in range(2):
            lose()
            recovered()
        eventually(said)
    [warning] = said()
    assert "durable_monitors cannot be written" in warning


def test_while_the_database_hangs_there(
    stub_broker, db, durable, lose, recovered, on_insert, eventually, monkeypatch
):
    monkeypatch.setattr("dramatiq_durable.liveness.WRITTEN_EVERY", 0.0)
    on_insert(HANGS)
    with running(Monitor(stub_broker, interval=0.01)):
        with hang(db):
            for _ in range(2):
                lose()
                recovered()
            assert hanging(db) == 1
        eventually(durable.monitors.seen)


def test_that_it_hangs_keeps_no_monitor_from_its_end(stub_broker, db, on_insert, eventually):
    on_insert(HANGS)
    with hang(db):
        with running(Monitor(stub_broker, interval=0.01)):
            eventually(lambda: hanging(db))
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert hanging(db) == 1
