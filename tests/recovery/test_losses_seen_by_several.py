"""Several monitors of one Redis: that one has searched, or only looked, hides no loss from the others."""

from contextlib import ExitStack, closing

import peewee
import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import Monitor, durable_actor
from tests.support.proxy import Proxy

from .conftest import running

pytestmark = [pytest.mark.failure(35), pytest.mark.failure(30)]

OLD = {"seconds": 10}  # enough for a message not to be on its way any more
SOON = 5  # seconds, of which none of them is a job_timeout


def counted(durable):
    return [audit.enqueue_count for audit in durable.store.list_audits()]


@pytest.fixture
def deploy(use, make_durable):
    """``deploy(url, database)``: a broker with an actor ``charge``, whose audits are in *database*."""

    def deploy(url, database):
        broker = use(RedisBroker(url=url))
        broker.durable = make_durable(broker, database)

        @durable_actor(broker=broker)
        def charge(order_id):
            pass

        broker.charge = charge
        return broker

    return deploy


@pytest.fixture
def shops(deploy, redis_url, tmp_path):
    """Two applications in one namespace of one Redis, each with a database of its own."""
    with ExitStack() as stack:
        databases = [peewee.SqliteDatabase(tmp_path / f"{name}.db") for name in ("one", "other")]
        for database in databases:
            stack.callback(database.close)
        yield [deploy(redis_url, database) for database in databases]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_of_two_monitors_with_databases_of_their_own_sends_what_it_has_lost(
    shops, clock, eventually, order
):
    monitors = [Monitor(shop) for shop in shops]
    for shop, number in zip(shops, (3, 4), strict=True):
        for order_id in range(number):
            shop.charge.send(order_id)
    clock.move(**OLD)
    for _ in range(3):
        for monitor in monitors:
            monitor.run_once()
    assert [counted(shop.durable) for shop in shops] == [[1] * 3, [1] * 4]

    shops[0].client.flushdb()
    for index in order:
        for _ in range(3):
            monitors[index].run_once()

    def sent_again():
        for index in order:
            monitors[index].run_once()
        return [counted(shop.durable) for shop in shops] == [[2] * 3, [2] * 4]

    eventually(sent_again, timeout=SOON)
    assert shops[0].client.llen("dramatiq:default") == 7


def test_a_single_pass_of_another_process_does_not_hide_the_loss_from_a_monitor_that_runs(
    redis_broker, sqlite_db, make_durable, declare, clock, eventually
):
    durable = make_durable(redis_broker, sqlite_db)
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    clock.move(**OLD)
    cleanups = []
    sqlite_db.query_hooks.append(
        lambda event: 'finished_at" <=' in event.sql and cleanups.append(event)
    )
    with running(Monitor(redis_broker, interval=1)):
        eventually(lambda: cleanups)  # with which each pass ends
        assert counted(durable) == [1] * 3
        redis_broker.client.flushdb()
        Monitor(redis_broker).run_once()
        eventually(lambda: counted(durable) == [2] * 3, timeout=SOON)
    assert redis_broker.client.llen("dramatiq:default") == 3


def test_a_search_in_which_redis_did_not_answer_once_is_made_again(
    deploy, redis_url, sqlite_db, clock, eventually
):
    with closing(Proxy(redis_url)) as proxy:
        broker = deploy(proxy.url, sqlite_db)
        for order_id in range(3):
            broker.charge.send(order_id)
        clock.move(**OLD)
        monitor = Monitor(broker)
        for _ in range(3):
            monitor.run_once()
        broker.client.flushdb()
        proxy.lose_the_reply_to(".DQ.msgs")

        def sent_again():
            monitor.run_once()
            return counted(broker.durable) == [2] * 3

        eventually(sent_again, timeout=SOON)
        assert proxy.cuts == 1
        assert broker.client.llen("dramatiq:default") == 3
