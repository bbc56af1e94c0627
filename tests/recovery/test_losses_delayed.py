"""A delay queue of RabbitMQ: what its consumer holds is not lost, what went with the queue is."""

import pytest

from dramatiq_durable import Monitor

from .conftest import running

pytestmark = [pytest.mark.failure(35), pytest.mark.failure(8)]

DELAY = 3_600_000


@pytest.fixture
def durable(rabbitmq_broker, sqlite_db, make_durable):
    return make_durable(rabbitmq_broker, sqlite_db)


@pytest.fixture
def ready(rabbitmq_broker):
    """``ready()``: how many messages wait in the delay queue, and are with no consumer."""
    return lambda: rabbitmq_broker.get_queue_message_counts("default")[1]


@pytest.fixture
def counted(durable):
    """``counted()``: the enqueue_count of each audit."""
    return lambda: [audit.enqueue_count for audit in durable.store.list_audits(limit=1_000)]


@pytest.fixture
def send(declare, clock):
    """``send(number)``: so many messages that are delayed for long, and not on their way any more."""

    def send(number):
        charge = declare()
        for order_id in range(number):
            charge.send_with_options(args=(order_id,), delay=DELAY)
        clock.move(seconds=10)

    return send


@pytest.fixture
def fetch_all(rabbitmq_broker, ready, eventually):
    """``fetch_all()``: a consumer of the delay queue takes all that is in it, and keeps it until the test's end."""
    consumers = []

    def fetch_all():
        consumer = rabbitmq_broker.consume("default.DQ", prefetch=1_000, timeout=100)
        consumers.append(consumer)
        assert next(consumer) is not None
        eventually(lambda: ready() == 0)

    yield fetch_all
    for consumer in consumers:
        consumer.close()


def test_what_the_consumer_of_a_delay_queue_holds_is_not_taken_for_lost_by_a_monitor_that_starts(
    rabbitmq_broker, durable, send, fetch_all, passes, ready, counted
):
    send(300)
    fetch_all()
    with running(Monitor(rabbitmq_broker, interval=0.02)):
        passes(5)
    assert ready() == 0
    assert counted() == [1] * 300


def test_what_the_consumer_of_a_delay_queue_takes_between_two_looks_is_not_taken_for_lost(
    rabbitmq_broker, durable, send, fetch_all, ready, counted, monkeypatch
):
    monkeypatch.setattr("dramatiq_durable.presence.counted.LOOK_EVERY", 0.0)
    send(300)
    monitor = Monitor(rabbitmq_broker)
    assert not monitor.run_once()
    fetch_all()
    for _ in range(3):
        assert not monitor.run_once()
    assert ready() == 0
    assert counted() == [1] * 300


@pytest.mark.parametrize("number", [1, 20])
def test_what_was_in_a_delay_queue_that_was_deleted_is_sent_again_once(
    rabbitmq_broker, durable, send, eventually, passes, ready, counted, number
):
    send(number)
    rabbitmq_broker.connection.channel().queue_delete("default.DQ")
    with running(Monitor(rabbitmq_broker, interval=0.02)):
        eventually(lambda: min(counted()) >= 2)
        passes(5)
    assert counted() == [2] * number
    eventually(lambda: ready() == number)
    assert rabbitmq_broker.get_queue_message_counts("default")[0] == 0
