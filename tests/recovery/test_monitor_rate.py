"""What comes back after an outage comes at a bounded rate, and what is new does not wait for all of it."""

import pytest

from dramatiq_durable import DurableError, Monitor

from .conftest import running

pytestmark = pytest.mark.failure(33)


@pytest.fixture
def lost(stub_broker, stub_durable, declare, clock):
    """``lost(count)``: so many messages that the broker has lost, the last one the latest to be stale."""
    charge = declare()

    def send(count):
        for order_id in range(count):
            charge.send(order_id)
        clock.move(minutes=1)
        charge.send("latest")
        stub_broker.flush_all()
        clock.move(hours=1)

    return send


def test_a_monitor_waits_between_two_messages_and_not_when_it_is_to_stop(
    stub_broker, stub_durable, lost, eventually
):
    lost(100)
    with running(Monitor(stub_broker, max_rate=0.001)):
        eventually(stub_broker.queues["default"].qsize)
    assert stub_broker.queues["default"].qsize() <= 2


def test_the_latest_does_not_wait_for_all_that_is_older(
    stub_broker, stub_durable, lost, watch, eventually
):
    lost(300)
    watcher = watch(stub_broker)
    with running(Monitor(stub_broker, batch_size=20)):
        eventually(lambda: len(watcher.enqueued) == 301)
    order_ids = [message.args[0] for message in watcher.enqueued]
    assert order_ids[:20] == list(range(20))
    assert order_ids.index("latest") == 20
    assert len(set(order_ids)) == 301


@pytest.mark.parametrize("name", ["interval", "batch_size", "max_rate"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_numbers_that_make_no_sense_are_refused(stub_broker, stub_durable, name, value):
    with pytest.raises(DurableError, match=f"{name} must be more than 0"):
        Monitor(stub_broker, **{name: value})


def test_a_rate_may_be_unlimited(stub_broker, stub_durable, lost):
    lost(100)
    assert Monitor(stub_broker, max_rate=float("inf")).run_once().recovered == 101
