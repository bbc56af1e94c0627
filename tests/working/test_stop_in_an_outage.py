"""Jobs that wait for a database that does not answer: what ends that, and what comes of it."""

import dramatiq
import pytest
from dramatiq.middleware import TimeLimit

from dramatiq_durable import durable_actor

pytestmark = pytest.mark.failure(19)


@pytest.fixture
def server(own_postgres, stub_broker, make_durable):
    stub_broker.middleware = [m for m in stub_broker.middleware if not isinstance(m, TimeLimit)]
    stub_broker.add_middleware(TimeLimit(interval=10))
    stub_broker.emit_after("process_boot")
    server = own_postgres()
    make_durable(stub_broker, server.url)
    return server


@pytest.fixture
def declare(server, ran):
    """``declare(**options)``: a durable actor that is run once, and the actor that makes up for it."""

    @dramatiq.actor
    def refund(data, info):
        ran.append("refund")

    def make(**options):
        @durable_actor(max_retries=0, **options)
        def charge():
            ran.append("charge")

        return charge

    return make


@pytest.fixture
def runs_later(server, stub_broker, ran, work, monitor, clock, audit_of):
    """``runs_later(message)``: nothing has become of it in the outage, and it runs after it."""

    def check(message):
        server.start()
        work()
        assert ran == []
        assert stub_broker.dead_letters == []
        assert audit_of(message).state == "pending"

        clock.move(minutes=11)
        assert monitor.run_once().recovered == 1
        work()
        assert ran == ["charge"]
        assert audit_of(message).state == "completed"

    return check


@pytest.mark.parametrize(
    "options",
    [
        {"on_retry_exhausted": "refund"},
        {"on_retry_exhausted": "refund", "notify_shutdown": True},
        {"requeue_on_shutdown": True},
    ],
    ids=["compensated", "compensated, interrupted", "requeued"],
)
def test_a_job_that_waits_when_its_worker_stops_is_neither_compensated_nor_lost(
    server, declare, running_worker, eventually, runs_later, caplog, options
):
    message = declare(**options).send()
    server.stop()
    with running_worker():
        eventually(lambda: f"{message.message_id} waits" in caplog.text)
    runs_later(message)


def test_a_job_whose_time_is_up_while_it_waits_is_neither_compensated_nor_lost(
    server, stub_broker, declare, running_worker, eventually, runs_later
):
    message = declare(on_retry_exhausted="refund", time_limit=300).send()
    server.stop()
    with running_worker():
        eventually(lambda: not stub_broker.queues["default"].unfinished_tasks)
    runs_later(message)
