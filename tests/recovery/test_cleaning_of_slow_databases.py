"""Deleting holds up nobody: its batches become small where the database is slow, and recovery does not wait for their end."""

from contextlib import closing

import pytest
from playhouse.db_url import connect

from dramatiq_durable import Monitor, durable_actor
from tests.support.proxy import Proxy

from .conftest import running

pytestmark = pytest.mark.failure(41)


@pytest.fixture
def durable(stub_broker, postgres_url, make_durable):
    database = connect(postgres_url)
    yield make_durable(stub_broker, database)
    database.close()


@pytest.fixture
def expire(durable, declare, clock):
    """``expire(count, seconds)``: so many audits past their retention, each of which takes so long to delete."""

    def expire(count, seconds):
        charge = declare()
        durable.send_many(charge.message(order_id) for order_id in range(count))
        durable.broker.flush_all()
        database = durable.store.database
        database.execute_sql(
            "UPDATE durable_audits SET state = 'completed', due_at = NULL, finished_at = created_at"
        )
        database.execute_sql(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
            f"'BEGIN PERFORM pg_sleep({seconds}); RETURN OLD; END'"
        )
        database.execute_sql(
            "CREATE TRIGGER slow BEFORE DELETE ON durable_audits FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
        clock.move(days=2)

    return expire


@pytest.fixture
def deletes(durable):
    """How many audits each statement was to delete."""
    counts = []

    def note(event):
        if event.sql.startswith("DELETE"):
            counts.append(event.sql[: event.sql.index(")")].count("%s"))

    hooks = durable.store.database.query_hooks
    hooks.append(note)
    yield counts
    hooks.remove(note)


def test_a_batch_that_takes_long_makes_the_next_ones_small(stub_broker, expire, deletes):
    expire(200, 0.004)  # a batch of a dozen is quick enough
    assert Monitor(stub_broker, batch_size=100).run_once().deleted == 200
    assert deletes[:3] == [100, 50, 25]
    assert max(deletes[3:]) <= 25
    assert sum(deletes) == 200


def test_a_database_that_is_far_away_does_not_make_the_batches_small(
    stub_broker, postgres_url, make_durable, declare, clock
):
    with closing(Proxy(postgres_url)) as proxy, closing(connect(proxy.url)) as database:
        durable = make_durable(stub_broker, database)
        charge = declare()
        durable.send_many(charge.message(order_id) for order_id in range(1_000))
        database.execute_sql(
            "UPDATE durable_audits SET state = 'completed', due_at = NULL, finished_at = created_at"
        )
        clock.move(days=2)
        deletes = []
        database.query_hooks.append(lambda e: e.sql.startswith("DELETE") and deletes.append(e))
        proxy.delay = 0.02
        assert Monitor(stub_broker, batch_size=100).run_once().deleted == 1_000
        proxy.delay = 0
        assert len(deletes) < 30
        durable.store.connections.close()


def test_what_is_lost_comes_back_before_all_that_is_old_is_deleted(
    stub_broker, durable, expire, clock, deletes, eventually
):
    @durable_actor
    def pay():
        raise AssertionError

    expire(2_000, 0.01)
    pay.send()
    stub_broker.flush_all()
    with running(Monitor(stub_broker, interval=0.05, batch_size=50)):
        eventually(lambda: deletes)
        clock.move(hours=1)
        eventually(stub_broker.queues["default"].qsize)
        assert 0 < sum(deletes) < 1_000
