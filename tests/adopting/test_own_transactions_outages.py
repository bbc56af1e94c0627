"""The broker does not answer when the transaction has been committed."""

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from tests.support.proxy import Proxy
from tests.support.servers import free_port

pytestmark = [
    pytest.mark.failure(3),
    pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "django-mariadb"]),
]


@pytest.fixture
def redis(redis_url):
    """Redis, behind a network of its own."""
    proxy = Proxy(redis_url, free_port())
    yield proxy
    proxy.close()


@pytest.fixture
def durable(redis, db, make_durable):
    before = dramatiq.broker.global_broker
    broker = RedisBroker(url=redis.url)
    dramatiq.set_broker(broker)
    yield make_durable(broker, db)
    broker.close()
    dramatiq.broker.global_broker = before


def test_when_it_is_back_a_monitor_sends_what_was_committed(
    redis, shop, durable, charge, orders, ran, work, monitor, audits, caplog
):
    with shop.begin(), durable.transaction(shop.connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send("an argument")
        charge.send_many([(1,), (2,)])
        redis.down()
    assert orders() == [1]
    assert [audit.enqueue_count for audit in audits(durable)] == [0] * 3
    assert "an argument" not in caplog.text

    redis.up()
    assert monitor.run_once().recovered == 3
    work()
    assert sorted(map(str, ran)) == ["1", "2", "an argument"]


def test_a_send_needs_no_broker(redis, shop, durable, charge, orders, ran, work, monitor):
    redis.down()
    with shop.begin(), durable.transaction(shop.connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send(1)
        charge.send_many([(2,)])
    assert orders() == [1]
    redis.up()
    monitor.run_once()
    work()
    assert sorted(ran) == [1, 2]
