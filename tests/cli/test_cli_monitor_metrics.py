"""monitor --prometheus-port."""

import socket

import pytest

from tests.support.metrics import Scrape
from tests.support.servers import free_port

APP = """
    import os

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware, Monitor, durable_actor

    broker = StubBroker()
    broker.add_middleware(DurableMiddleware(os.environ["SHOP_DATABASE"]))
    dramatiq.set_broker(broker)


    @durable_actor(actor_name="charge")
    def charge(order_id):
        pass


    def run_monitor():
        Monitor(broker, prometheus_port=int(os.environ["SHOP_PORT"])).run()
"""


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def shop(app, sqlite_url, port):
    """``shop(**environment)``: an application with its table."""

    def make(**environment):
        made = app(APP, SHOP_DATABASE=sqlite_url, SHOP_PORT=str(port), **environment)
        made.run("schema", "create", "app:broker").check_returncode()
        return made

    return make


def is_up(scraped):
    return scraped("dramatiq_durable_database_up") == 1


def test_it_serves_metrics_on_loopback_until_it_is_told_to_stop(shop, port, eventually):
    process = shop().monitor("--prometheus-port", str(port))
    process.wait_for(f"Metrics are served on port {port} of 127.0.0.1.")
    scraped = Scrape(port)
    assert is_up(scraped)
    assert (
        scraped("dramatiq_durable_recovered_total", queue_name="default", actor_name="charge") == 0
    )
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port))
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert "Traceback" not in process.output()


def test_port_and_address_may_come_from_the_environment(shop, port):
    settings = {"PROMETHEUS_PORT": str(port), "PROMETHEUS_HOST": "0.0.0.0"}  # noqa: S104 - private to the machine
    made = shop(**{f"DRAMATIQ_DURABLE_{name}": value for name, value in settings.items()})
    process = made.monitor()
    process.wait_for(f"Metrics are served on port {port} of 0.0.0.0.")
    assert is_up(Scrape(port))
    socket.create_connection(("127.0.0.2", port)).close()
    # They are served for as long as passes are made; one pass needs no port.
    assert made.run("monitor", "app:broker", "--once").returncode == 0


def test_a_port_that_is_taken_is_one_line_and_a_usage_error(shop, port):
    with socket.create_server(("127.0.0.1", port)):
        done = shop().run("monitor", "app:broker", "--prometheus-port", str(port))
    assert done.returncode == 2
    *logs, last = done.stderr.splitlines()
    assert last == (
        f"Error: metrics cannot be served on port {port} of '127.0.0.1': Address already in use"
    )
    assert all("[INFO]" in line for line in logs)


def test_an_address_that_is_none_is_one_line_too(shop, port):
    words = ["--prometheus-port", str(port), "--prometheus-host", "192.0.2.1"]
    done = shop().run("monitor", "app:broker", *words)
    assert done.returncode == 2
    assert "of '192.0.2.1': Cannot assign requested address" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_a_usage_error(shop, port):
    done = shop().run("monitor", "app:broker", "--prometheus-port", port)
    assert done.returncode == 2
    assert "--prometheus-port" in done.stderr


def test_without_prometheus_client_one_line_says_what_to_install(shop, port):
    made = shop()
    (made.folder / "prometheus_client.py").write_text("raise ImportError")
    done = made.run("monitor", "app:broker", "--prometheus-port", str(port))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "Error: metrics need prometheus_client; run `pip install 'dramatiq-durable[prometheus]'`"
    )
    assert made.run("monitor", "app:broker", "--once").returncode == 0


def test_a_monitor_beside_the_workers_serves_them_too(shop, port, eventually):
    made = shop()
    process = made.process("import app; app.run_monitor()")

    def scraped():
        try:
            return is_up(Scrape(port))
        except OSError:
            return False

    eventually(scraped)
    process.terminate()
    process.wait(timeout=10)
    assert "Traceback" not in process.output()
