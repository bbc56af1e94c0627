"""monitor as a process: signals, what it logs and where."""

import signal

import pytest

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
