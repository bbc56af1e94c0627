"""An application with its servers, its processes and its audits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dramatiq_durable import DurableMiddleware
from dramatiq_durable.store import Store
from tests.support.app import App
from tests.support.databases import PostgresServer
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer, Server

APP = """
    import os, time
    from datetime import timedelta
    from pathlib import Path
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker
    import dramatiq_durable.monitor
    from dramatiq_durable import DurableMiddleware, durable_actor
    from dramatiq_durable.presence import Presence

    url = os.environ["BROKER_URL"]
    if url.startswith("redis"):
        broker = RedisBroker(url=url)
    else:
        broker = RabbitmqBroker(url=url, confirm_delivery=True)
    broker.add_middleware(DurableMiddleware())
    import dramatiq
    dramatiq.set_broker(broker)

    if os.environ.get("UNKNOWN"):  # to the monitor it is a broker that cannot tell anything
        dramatiq_durable.monitor.presence_of = lambda broker: Presence()

    QUICK = dict(job_timeout=1_000, heartbeat_interval=200, backoff=lambda count: timedelta(seconds=count))


    @durable_actor
    def gated(number):
        note("start", number)
        while Path("gate").exists():
            time.sleep(0.05)
        note("end", number)


    @durable_actor(**QUICK)
    def short(number):
        time.sleep(0.08)


    def note(*words):
        with open("notes", "a") as notes:
            print(*words, file=notes, flush=True)
"""


class Stand:
    def __init__(self, app: App, broker: Server, store: Store) -> None:
        self.app = app
        self.broker = broker
        self.store = store

    def notes(self, word: str) -> list[str]:
        path = self.app.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(word)]

    def count(self, *states: str) -> int:
        return sum(tally.count for tally in self.store.tallies() if tally.state in states)


@contextmanager
def stand(broker: str, **environment: str) -> Iterator[Stand]:
    """The application on a new *broker* and a new PostgreSQL, both with what they keep by default."""
    with ExitStack() as stack:
        servers: list[Server] = [
            RedisServer() if broker == "redis" else RabbitmqServer(),
            PostgresServer(),
        ]
        for server in servers:
            stack.callback(server.close)
            server.start()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(servers[1].fresh())
        urls = {"BROKER_URL": servers[0].url, "DRAMATIQ_DURABLE_DATABASE_URL": database}
        durable = DurableMiddleware(database)
        durable.create_tables()
        stack.callback(durable.store.connections.close)
        app = App(folder, APP, {**urls, **environment})
        stack.callback(app.close)
        yield Stand(app, servers[0], durable.store)
