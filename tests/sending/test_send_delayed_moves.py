"""Redis refuses, or does not answer, when a worker moves a message from its delay queue."""

import logging
import threading

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

pytestmark = pytest.mark.failure(14)

DELAY_QUEUE = "default.DQ"


class FailsAtTheMove(dramatiq.Middleware):
    """Redis fails from the moment when the first message is moved from the delay queue."""

    def __init__(self, fail):
        self.fail = fail
        self.happened = False

    def before_enqueue(self, broker, message, delay):
        moves = threading.current_thread() is not threading.main_thread()
        if moves and not self.happened:
            self.happened = True
            self.fail()


class Silent:
    """A network on which answers come too late for its clients."""

    def __init__(self, url, make_proxy):
        self._proxy = make_proxy(url)
        self.broker = RedisBroker(url=f"{self._proxy.url}?socket_timeout=0.3")

    def fail(self):
        self._proxy.delay = 1.0

    def recover(self):
        self._proxy.delay = 0.0


class Refusing:
    """A Redis that takes no writes, for it has not the replicas that it must have."""

    def __init__(self, url, make_proxy):
        self._console = redis.Redis.from_url(url)
        self.broker = RedisBroker(url=url)

    def fail(self):
        self._console.config_set("min-replicas-to-write", 1)

    def recover(self):
        self._console.config_set("min-replicas-to-write", 0)


@pytest.fixture(params=[Silent, Refusing])
def failing(request, own_redis, make_proxy, use):
    """A Redis that fails when it is told to, and its ``broker``."""
    failing = request.param(own_redis().url, make_proxy)
    use(failing.broker)
    yield failing
    failing.recover()


@pytest.mark.parametrize("is_durable", [True, False])
def test_delayed_messages_are_moved_again_after_redis_has_failed_at_the_moment_of_a_move(
    failing, sqlite_db, make_durable, is_durable, running_worker, monitor, clock, eventually, caplog
):
    caplog.set_level(logging.INFO)
    ran = []
    make_durable(failing.broker, sqlite_db)
    failure = FailsAtTheMove(failing.fail)
    failing.broker.add_middleware(failure)

    @dramatiq.actor(durable=is_durable)
    def charge(order_id):
        ran.append(order_id)

    charge.send_with_options(args=("much later",), delay=86_400_000)
    with running_worker(failing.broker) as worker:
        consumer = worker.consumers[DELAY_QUEUE]

        def restarts_or_ends():
            mine = [r for r in caplog.records if r.name.endswith(f"ConsumerThread({DELAY_QUEUE})")]
            restarts = any("Restarting consumer" in r.getMessage() for r in mine)
            return failure.happened and (restarts or not consumer.is_alive())

        charge.send_with_options(args=("first",), delay=100)
        eventually(restarts_or_ends)
        failing.recover()
        charge.send_with_options(args=("second",), delay=100)
        eventually(lambda: "second" in ran, timeout=15)
        assert consumer.is_alive()
        if is_durable:
            clock.move(minutes=11)
            monitor.run_once()
            eventually(lambda: "first" in ran)
