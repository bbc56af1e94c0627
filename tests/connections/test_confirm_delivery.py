"""A RabbitMQ that does not confirm what it takes: whoever starts is told so."""

import logging

import dramatiq
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, Monitor, durable_actor
from tests.support.servers import free_port

pytestmark = pytest.mark.failure(44)

ADVICE = "confirm_delivery=True"

SOURCE = """
    import os

    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = RabbitmqBroker(url=os.environ["URL"], confirm_delivery="CONFIRM" in os.environ)
    broker.add_middleware(DurableMiddleware("sqlite:///app.db"))
    dramatiq.set_broker(broker)


    @durable_actor
    def charge():
        pass


    @durable_actor(queue_name="invoices")
    def invoice():
        pass
"""


@pytest.fixture
def nobody():
    """An address of RabbitMQ at which nobody answers."""
    return f"amqp://guest:guest@127.0.0.1:{free_port()}"


@pytest.fixture
def warnings(caplog, sqlite_url):
    """``warnings(broker)``: what is logged when it gets its middleware, actors and monitor."""

    def start(broker):
        before = dramatiq.broker.global_broker
        dramatiq.set_broker(broker)
        broker.add_middleware(DurableMiddleware(sqlite_url))

        @durable_actor
        def charge():
            pass

        @durable_actor(queue_name="invoices")
        def invoice():
            pass

        Monitor(broker)
        dramatiq.broker.global_broker = before
        broker.close()
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    return start


def test_it_is_said_once_what_is_wrong_what_it_costs_and_what_to_do(warnings, nobody):
    [warning] = warnings(RabbitmqBroker(url=nobody))
    for words in ("RabbitmqBroker", "job_timeout", ADVICE):
        assert words in warning


def test_nothing_is_said_of_a_broker_that_confirms_or_that_need_not(warnings, nobody):
    assert warnings(RabbitmqBroker(url=nobody, confirm_delivery=True)) == []
    assert warnings(RedisBroker(url=f"redis://127.0.0.1:{free_port()}")) == []
    assert warnings(StubBroker()) == []


def test_the_logs_of_worker_and_monitor_begin_with_it(app, nobody):
    made = app(SOURCE, URL=nobody)
    assert made.run("schema", "create", "app:broker").returncode == 0
    worker, monitor = made.worker(), made.monitor()
    monitor.wait_for("Monitoring the audits")
    assert [process.output().count(ADVICE) for process in (worker, monitor)] == [1, 1]

    confirms = app(SOURCE, URL=nobody, CONFIRM="1")
    done = confirms.run("schema", "create", "app:broker")
    assert done.returncode == 0
    assert ADVICE not in done.stderr
