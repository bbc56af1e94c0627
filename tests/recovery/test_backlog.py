"""A message that still waits in the broker is not sent again, however long it waits; one that is lost is."""

import uuid

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Monitor, durable_actor


class Mute(StubBroker):
    """A broker of which nothing is known."""


@pytest.fixture
def mute(use):
    return use(Mute())


@pytest.fixture(autouse=True)
def mute_tells_nothing(monkeypatch):
    """Mute is a StubBroker only for us: to the monitor it is a broker of an unknown kind."""


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_redis_still_has_is_not_sent_again(broker, durable, declare, clock, monitor, audits):
    charge = declare()
    for order_id in range(10):
        charge.send(order_id)
    charge.send_with_options(args=("delayed",), delay=1_000)
    for _ in range(20):
        clock.move(minutes=5, seconds=30)
        assert monitor.run_once().recovered == 0
    assert {audit.enqueue_count for audit in audits(durable)} == {1}
    assert broker.client.llen("dramatiq:default") == 10
