"""monitor as a process: signals, what it logs and where."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.support.app import SOURCE
from tests.support.servers import free_port

APP = """
    import os
    import pathlib
    import time
    from datetime import timedelta

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware, durable_actor


    class SlowBroker(StubBroker):
        def enqueue(self, message, *, delay=None):
            if pathlib.Path("slow").exists():
                print("pushing", flush=True)
                while pathlib.Path("slow").exists():
                    time.sleep(0.01)
            return super().enqueue(message, delay=delay)


    broker = SlowBroker()
    durable = DurableMiddleware(os.environ["SHOP_DATABASE"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor(actor_name="charge")
    def charge(order_id):
        pass
"""


@pytest.fixture
def shop(app, sqlite_url):
    made = app(APP, SHOP_DATABASE=sqlite_url)
    made.run("schema", "create", "app:broker").check_returncode()
    return made


@pytest.fixture
def stale(shop, charge, sqlite_db):
    """``stale(payload=None)``: the id of a job whose time is over."""

    def make(payload=None):
        message = charge.send(1)
        sqlite_db.execute_sql(
            "UPDATE durable_audits SET due_at = 1, payload = coalesce(?, payload)"
            " WHERE message_id = ?",
            (payload, message.message_id),
        )
        return message.message_id

    return make


@pytest.mark.parity(29)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_between_passes_at_once(shop, signum):
    process = shop.monitor("--interval", "1h")
    process.wait_for("every 3600 s")
    process.signal(signum)
    assert process.wait(timeout=10) == 0
    assert "Traceback" not in process.output()


@pytest.mark.parity(29)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_pass_be_finished(shop, stale, durable, signum):
    message_id = stale()
    (shop.folder / "slow").touch()
    process = shop.monitor("--interval", "1h")
    process.wait_for("pushing")
    process.signal(signum)
    process.signal(signum)
    assert process.returncode is None
    marked = durable.store.get(message_id)
    (shop.folder / "slow").unlink()
    assert process.wait() == 0
    confirmed = durable.store.get(message_id)
    assert marked.enqueue_count == confirmed.enqueue_count == 2
    assert marked.enqueued_at is None
    assert confirmed.enqueued_at is not None
    assert "Recovered 1, dead 0, deleted 0, failed 0." in process.output()


@pytest.mark.parity(29)
def test_the_interval_may_come_from_the_environment(app, sqlite_url, shop):
    again = app(APP, SHOP_DATABASE=sqlite_url, DRAMATIQ_DURABLE_INTERVAL="15m")
    process = again.monitor()
    process.wait_for("every 900 s")
    process.terminate()
    assert process.wait() == 0


def test_a_pass_with_nothing_to_do_says_nothing(shop, stale):
    process = shop.monitor("--interval", "10ms")
    process.wait_for("every 0.01 s")
    stale()
    process.wait_for("Recovered 1, dead 0, deleted 0, failed 0.\n")
    process.terminate()
    assert process.wait() == 0
    lines = process.output().splitlines()
    assert sum("Recovered" in line for line in lines) == len(lines) - 1


def test_logs_go_to_stderr_and_counts_to_stdout(shop, stale):
    stale()
    stale(payload=b"\xff")
    done = shop.run("monitor", "app:broker", "--once")
    assert (done.returncode, done.stdout) == (1, "recovered 1, dead 0, deleted 0, failed 1\n")
    assert "cannot be sent" in done.stderr
    assert "WARNING" in done.stderr


@pytest.mark.failure(43)
def test_a_missing_table_ends_it_with_the_command_to_run(shop, sqlite_db):
    sqlite_db.execute_sql("DROP TABLE durable_audits")
    process = shop.monitor()
    assert process.wait() == 1
    assert "`dramatiq-durable schema create app:broker`" in process.output().splitlines()[-1]
    assert "Traceback" not in process.output()


RABBITMQ = APP.replace(
    "broker = SlowBroker()", "broker = RabbitmqBroker(url=os.environ['URL'])"
).replace(
    "import dramatiq\n",
    "import dramatiq\n    from dramatiq.brokers.rabbitmq import RabbitmqBroker\n",
)


@pytest.mark.failure(33)
def test_what_pika_says_of_a_rabbitmq_that_is_down_is_shown_on_demand(app, sqlite_url, shop, stale):
    nobody = f"amqp://guest:guest@127.0.0.1:{free_port()}"
    shop = app(RABBITMQ, SHOP_DATABASE=sqlite_url, URL=nobody)
    stale()
    done = shop.run("monitor", "app:broker", "--once")
    assert done.returncode == 3
    assert "The broker takes no messages" in done.stderr
    assert "pika" not in done.stderr
    assert "Traceback" not in done.stderr
    stale()
    assert "[pika." in shop.run("monitor", "app:broker", "--once", "--verbose").stderr


@pytest.mark.failure(21)
def test_a_database_that_does_not_answer_is_waited_for(app):
    nobody = f"postgresql://shop:hunter2@127.0.0.1:{free_port()}/shop"
    process = app(APP, SHOP_DATABASE=nobody).monitor("--interval", "10ms")
    process.wait_for("The monitor waits.")
    assert process.returncode is None
    process.terminate()
    assert process.wait() == 0
    assert "hunter2" not in process.output()


def test_it_touches_its_health_file_and_is_seen_until_it_is_told_to_stop(shop, eventually):
    health = shop.folder / "health"
    process = shop.monitor("--interval", "10ms", "--health-file", "health")
    eventually(health.exists)
    os.utime(health, (1, 1))
    eventually(lambda: health.stat().st_mtime > 1)
    assert shop.run("doctor", "app:broker").returncode == 0
    [monitor] = json.loads(shop.run("status", "app:broker", "--json").stdout)["monitors"]
    assert (monitor["pid"], monitor["stopped"]) == (process.pid, False)
    process.terminate()
    assert process.wait() == 0
    [monitor] = json.loads(shop.run("status", "app:broker", "--json").stdout)["monitors"]
    assert (monitor["pid"], monitor["stopped"]) == (process.pid, True)


@pytest.mark.parametrize(("age", "healthy"), [(60, True), (300, False), (None, False)])
def test_the_probe_of_readme_and_example_goes_by_the_age_of_the_file(tmp_path, age, healthy):
    readme, compose = (
        (SOURCE / name).read_text() for name in ("README.md", "examples/deploy/compose.yaml")
    )
    [probe] = re.findall("A probe is `(.+?)`", readme)
    assert probe.replace("$", "$$").replace("PATH", "/tmp/monitor.health") in compose
    health = tmp_path / "health"
    if age is not None:
        health.touch()
        then = time.time() - age
        os.utime(health, (then, then))
    done = subprocess.run(["/bin/sh", "-c", probe.replace("PATH", str(health))], check=False)
    assert (done.returncode == 0) == healthy


def test_one_that_was_killed_is_not_said_to_have_stopped(shop, durable, eventually):
    process = shop.monitor("--interval", "10ms")
    eventually(durable.monitors.seen)
    process.kill()
    [seen] = durable.monitors.seen()
    assert not seen.stopped


def test_a_single_pass_is_seen_too_but_not_a_dry_run(shop, durable):
    shop.run("monitor", "app:broker", "--dry-run", "--health-file", "health").check_returncode()
    assert (durable.monitors.seen(), (shop.folder / "health").exists()) == ([], False)
    for _ in range(2):
        shop.run("monitor", "app:broker", "--once", "--health-file", "health").check_returncode()
    [seen] = durable.monitors.seen()
    assert (seen.stopped, (shop.folder / "health").exists()) == (True, True)


@pytest.mark.parametrize("path", ["no such folder/health", "."])
def test_a_health_file_that_cannot_be_is_a_usage_error(shop, path):
    done = shop.run("monitor", "app:broker", "--once", "--health-file", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--health-file" in done.stderr
