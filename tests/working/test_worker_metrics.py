"""What workers count, beside the metrics of Dramatiq's own Prometheus middleware."""

import os
import subprocess
import sys

import pytest

from tests.support.metrics import Scrape
from tests.support.servers import free_port

APP = """
    import os
    import pathlib
    import time

    import dramatiq
    import peewee
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.middleware.prometheus import Prometheus
    from dramatiq_durable import Audit, DurableMiddleware, current_audit, durable_actor


    class Careless(DurableMiddleware):
        def audit_failed(self, broker, message, error):
            print("no audit for", message.actor_name, flush=True)

        def audit_columns(self, broker, message):
            return {"key": "the same"} if message.actor_name == "once" else {}


    db = peewee.SqliteDatabase("shop.db")


    class Keyed(Audit):
        key = peewee.CharField(null=True, unique=True)

        class Meta:
            database = db
            table_name = "keyed"


    broker = RedisBroker(url=os.environ["SHOP_REDIS"])
    middleware = [Prometheus(), Careless(db)]
    for each in middleware if os.environ["SHOP_ORDER"] == "ours last" else reversed(middleware):
        broker.add_middleware(each)
    dramatiq.set_broker(broker)


    @durable_actor(actor_name="once", audit_model=Keyed)
    def once():
        pass


    @durable_actor(actor_name="charge")
    def charge():
        pass


    @durable_actor(actor_name="sell")
    def sell(number):
        if number:
            once.send_many([()] * number)
        else:
            once.send()


    @durable_actor(actor_name="wait", heartbeat_interval=100, max_retries=0)
    def wait(beats):
        pathlib.Path("waiting").touch()
        while True:
            if beats:
                current_audit().heartbeat()
            time.sleep(0.01)
"""


@pytest.fixture(params=["ours last", "ours first"])
def shop(request, app, redis_url, tmp_path):
    """An application with Dramatiq's Prometheus and our middleware, and a worker; ``.port`` shows what it counts."""
    port = free_port()
    made = app(
        APP,
        SHOP_REDIS=redis_url,
        SHOP_ORDER=request.param,
        dramatiq_prom_port=str(port),
        dramatiq_prom_host="127.0.0.1",
        dramatiq_prom_db=str(tmp_path / "counts"),
    )
    made.run("schema", "create", "app:broker").check_returncode()
    made.port = port
    made.worker()
    return made


@pytest.fixture
def do(shop):
    """``do(code)`` in a process that sends; it must not have imported prometheus_client."""

    def run(code):
        done = shop.python(
            "import sys, app, time\n"
            + code
            + "\nassert 'prometheus_client' not in sys.modules, 'it was imported'"
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def shown(shop, eventually):
    """``shown(name, value, **labels)``: wait until the worker's port shows it; what it shows then."""

    def wait(name, value, **labels):
        def look():
            made = Scrape(shop.port)
            return made if made(name, **labels) == value else None

        return eventually(look, message=f"{name} {labels} = {value}")

    return wait


def of(actor_name):
    return {"queue_name": "default", "actor_name": actor_name}


def test_what_workers_count_is_shown_beside_what_dramatiq_counts(shop, do, shown):
    do("app.charge.send()")
    first = shown("dramatiq_messages_total", 1, **of("charge"))
    # What has not happened yet is zero.
    assert first("dramatiq_durable_collisions_total", **of("charge")) == 0
    assert first("dramatiq_durable_unaudited_total") == 0
    assert first("dramatiq_durable_lost_leases_total") == 0

    do(
        "message = app.charge.send()\n"
        "while not (a := app.middleware[1].store.get(message.message_id)).state == 'completed': time.sleep(.01)\n"
        "for _ in range(3): app.broker.enqueue(message)"
    )
    shown("dramatiq_durable_collisions_total", 3, **of("charge"))

    do("app.once.send(); app.sell.send(0); app.sell.send(2)")
    shown("dramatiq_durable_unaudited_total", 3)

    for beats in (False, True):
        do(
            f"message = app.wait.send({beats})\n"
            "while not app.pathlib.Path('waiting').exists(): time.sleep(.01)\n"
            "app.pathlib.Path('waiting').unlink()\n"
            "assert list(app.middleware[1].store.cancel([message.message_id])) == [1]"
        )
        last = shown("dramatiq_durable_lost_leases_total", 1 + beats)

    # Dramatiq's own are still there.
    assert last("dramatiq_messages_total", **of("charge")) == 5
    assert last("dramatiq_messages_total", **of("sell")) == 2
    assert last("dramatiq_message_duration_milliseconds_count", **of("charge")) == 5


@pytest.mark.parametrize("exposed", [True, False])
def test_where_nobody_shows_them_nothing_is_counted_nor_imported(exposed, tmp_path):
    code = f"""
import os, sys
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_durable import DurableMiddleware, durable_actor

broker = StubBroker()
if {exposed}:
    from dramatiq.middleware.prometheus import Prometheus
    broker.add_middleware(Prometheus())  # not booted, for this is not the dramatiq command
else:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "."
durable = DurableMiddleware("sqlite:///shop.db")
broker.add_middleware(durable)
dramatiq.set_broker(broker)
durable.create_tables()
charge = durable_actor(lambda: None, actor_name="charge")
worker = dramatiq.Worker(broker, worker_timeout=50)
worker.start()
message = charge.send()
broker.join("default")
durable.flush()
broker.enqueue(message)
broker.join("default")
assert "prometheus_client" not in sys.modules
assert not [name for name in os.listdir() if name.startswith("counter_")]
worker.stop()
"""
    environment = {name: value for name, value in os.environ.items() if "prom" not in name.lower()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "dramatiq_prom_db": str(tmp_path / "db")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "was skipped" in done.stderr
