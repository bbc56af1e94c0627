"""What a monitor's metrics cost its database."""

import time

import pytest

from dramatiq_durable import Monitor
from tests.support.metrics import Scrape, scrape
from tests.support.proxy import Proxy
from tests.support.servers import free_port

from .conftest import running


@pytest.fixture(params=["postgres", "mariadb"])
def proxy(request):
    """A network before the database."""
    made = Proxy(request.getfixturevalue(f"{request.param}_url"), free_port())
    yield made
    made.close()


@pytest.fixture
def durable(stub_broker, proxy, make_durable):
    made = make_durable(stub_broker, proxy.url)
    made.store.connections.close()
    return made


@pytest.fixture
def port(monkeypatch):
    """Of a monitor that reads its database at each scrape."""
    for name in ("GOOD_FOR", "SHARE"):
        monkeypatch.setattr(f"dramatiq_durable.readings.{name}", 0.0)
    return free_port()


def test_a_monitor_has_two_connections_whatever_asks_it(
    stub_broker, durable, proxy, port, monkeypatch, declare, clock, eventually
):
    monkeypatch.setattr("dramatiq_durable.liveness.WRITTEN_EVERY", 0.0)
    charge = declare()
    for number in range(20):
        charge.send(number)
    stub_broker.flush_all()
    durable.store.connections.close()
    eventually(lambda: proxy.connections == 0)
    before = proxy.accepted
    clock.move(hours=1)
    with running(Monitor(stub_broker, interval=0.001, prometheus_port=port)):
        for _ in range(20):
            found = scrape(port)
        eventually(
            lambda: (
                Scrape(port)(
                    "dramatiq_durable_recovered_total", queue_name="default", actor_name="charge"
                )
                == 20
            )
        )
    assert found("dramatiq_durable_database_up") == 1
    assert proxy.accepted - before == 2


@pytest.mark.failure(21)
def test_a_scrape_ends_while_the_database_says_nothing(
    stub_broker, durable, proxy, port, eventually
):
    with running(Monitor(stub_broker, interval=0.01, prometheus_port=port)):
        assert scrape(port)("dramatiq_durable_database_up") == 1
        proxy.hold_replies(after="", until="never to be seen")
        eventually(lambda: proxy.held)
        began = time.monotonic()
        found = Scrape(port)
        assert time.monotonic() - began < 5
        assert found("dramatiq_durable_database_up") == 0
        assert found("dramatiq_durable_failed_passes_total") == 0
        proxy.cut()
        proxy.close()
