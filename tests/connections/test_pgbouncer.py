"""Behind PgBouncer each transaction gets any connection of the server's, whatever its session was told before."""

import time
from datetime import timedelta

import psycopg
import pytest
import redis

from dramatiq_durable import current_audit, durable_actor
from dramatiq_durable.errors import AuditLocked
from dramatiq_durable.store import migrate
from tests.support.pgbouncer import PgbouncerServer

APP = """
    import os, time
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq_durable import DurableMiddleware, current_audit, durable_actor

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    broker.add_middleware(DurableMiddleware())
    dramatiq.set_broker(broker)


    @durable_actor(heartbeat_interval=500)
    def charge(order_id):
        time.sleep(2.5)  # longer than its lease
        with current_audit().transaction() as db:
            db.execute_sql("INSERT INTO charges VALUES (%s)", [order_id])
"""

SOON = 8  # seconds; see test_lock_waits.py


@pytest.fixture
def pgbouncer(postgres_url):
    """``pgbouncer(**settings)``: one in front of this test's database."""
    made = []

    def start(**settings):
        made.append(PgbouncerServer(postgres_url, **settings))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def client():
    """``client(url)``: a connection of somebody else's."""
    made = []

    def open_one(url):
        made.append(psycopg.connect(url, autocommit=True, prepare_threshold=None))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_jobs_are_sent_lost_recovered_run_and_completed(
    pgbouncer, client, pool_mode, postgres_url, redis_url, app, eventually
):
    # In a transaction the actors' own connections are used, one for each of their threads.
    pool = {"transaction": "4", "session": "40"}[pool_mode]
    url = pgbouncer(pool_mode=pool_mode, default_pool_size=pool).url
    ours = app(APP, BROKER_URL=redis_url, DRAMATIQ_DURABLE_DATABASE_URL=url)
    assert ours.run("schema", "create", "app:broker").returncode == 0
    direct = client(postgres_url)
    direct.execute("CREATE TABLE charges (order_id INTEGER)")
    sent = ours.python("import app\nfor number in range(12): app.charge.send(number)")
    assert sent.returncode == 0, sent.stderr
    with redis.Redis.from_url(redis_url) as broker:
        broker.flushdb()
    monitors = [ours.monitor("--interval", "0.1") for _ in range(2)]
    workers = [ours.worker("-t", "6") for _ in range(2)]
    audits = (
        "SELECT state, start_count, enqueue_count, count(*) FROM durable_audits GROUP BY 1, 2, 3"
    )
    eventually(lambda: direct.execute(audits).fetchall() == [("completed", 1, 2, 12)], 90)
    assert len(direct.execute("SELECT DISTINCT order_id FROM charges").fetchall()) == 12
    for process in [*monitors, *workers]:
        process.terminate()
        assert process.wait() == 0
        assert "ERROR" not in process.output()


def test_nothing_of_ours_stays_on_a_connection_that_others_get(
    pgbouncer, client, stub_broker, make_durable
):
    url = pgbouncer(default_pool_size="1").url
    durable = make_durable(stub_broker, url)

    @durable_actor
    def charge():
        pass

    for _ in range(10):
        charge.send()
    other = client(url)
    assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
    assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert durable.store.tallies()[0].count == 10


def test_a_lock_is_waited_for_a_second_on_a_connection_that_others_had_before(
    pgbouncer, client, postgres_url, stub_broker, make_durable
):
    url = pgbouncer(default_pool_size="2").url
    durable = make_durable(stub_broker, url)

    @durable_actor
    def charge():
        pass

    message = charge.send()
    store = durable.store.reserved()
    held = store.claim(message.message_id, 0, "claim", worker="test")
    with client(url).transaction():  # takes the one that ours had
        locker = client(postgres_url)
        for lock in (
            "SELECT 1 FROM durable_audits FOR UPDATE",
            "LOCK TABLE durable_audits IN ACCESS EXCLUSIVE MODE",
        ):
            with locker.transaction():
                locker.execute(lock)
                began = time.monotonic()
                with pytest.raises(AuditLocked):
                    store.heartbeat([held])
                assert time.monotonic() - began < SOON
            assert store.heartbeat([held]) == set()


def test_a_transaction_of_a_job_needs_one_connection(
    pgbouncer, stub_broker, make_durable, work, audit_of
):
    make_durable(stub_broker, pgbouncer(default_pool_size="1", query_wait_timeout="5").url)

    @durable_actor(max_retries=0)
    def charge():
        audit = current_audit()
        assert audit is not None
        with audit.transaction() as db:
            db.execute_sql("SELECT 1").close()

    message = charge.send()
    work()
    assert (audit_of(message).state, audit_of(message).failure_count) == ("completed", 0)


@pytest.mark.failure(43)
def test_a_migration_replaces_an_index_behind_it(
    stub_broker, pgbouncer, make_durable, client, postgres_url
):
    durable = make_durable(stub_broker, pgbouncer().url)
    console = client(postgres_url)
    console.execute("ALTER TABLE durable_audits DROP COLUMN signature")
    console.execute("DROP INDEX durable_audits_due")
    console.execute("CREATE INDEX durable_audits_due ON durable_audits (namespace, due_at)")
    told = []
    assert migrate(durable.store.table, timedelta(seconds=20), told.append) == []
    assert len(told) == 4
    # Nothing of it stays on the connections that others get.
    assert client(pgbouncer().url).execute("SHOW lock_timeout").fetchone() == ("0",)
