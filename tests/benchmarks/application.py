"""One durable actor on Redis: what the benchmarks of many audits send, lose and recover, here and in other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import DurableMiddleware, durable_actor
from tests.support.app import App

from . import databases

_SOURCE = """
    from tests.benchmarks.application import Application

    application = Application()
    broker, durable, charge = application.broker, application.durable, application.charge
"""


class Application:
    """By default the one that this process's environment speaks of."""

    def __init__(self, broker_url: str | None = None, database_url: str | None = None) -> None:
        self.broker = RedisBroker(url=broker_url or os.environ["BROKER_URL"])
        self.durable = DurableMiddleware(database_url)
        self.broker.add_middleware(self.durable)
        dramatiq.set_broker(self.broker)
        self.charge: Any = durable_actor(charge, broker=self.broker)

    def message(self, order_id: int = 42) -> dramatiq.Message[Any]:
        message: dramatiq.Message[Any] = self.charge.message(
            order_id, currency="EUR", cents=1995, note="for the order of last Tuesday, " * 5
        )
        return message

    def send(self, order_id: int = 42) -> dramatiq.Message[Any]:
        sent: dramatiq.Message[Any] = self.broker.enqueue(self.message(order_id))
        return sent

    def close(self) -> None:
        for store in self.durable.stores():
            store.connections.close()
        self.broker.close()


def charge(order_id: int, currency: str, cents: int, note: str) -> None:
    pass


@contextmanager
def standing(kind: str, redis_url: str) -> Iterator[tuple[Application, App]]:
    """The application on an empty database of a new server: in this process, and for others."""
    with ExitStack() as stack:
        fresh = stack.enter_context(databases.database(kind))
        url = stack.enter_context(fresh())
        application = Application(redis_url, url)
        stack.callback(application.close)
        application.durable.create_tables()
        yield application, stack.enter_context(processes_of(redis_url, url))


@contextmanager
def processes_of(redis_url: str, url: str) -> Iterator[App]:
    """Where its processes live; they end with the block."""
    with TemporaryDirectory(prefix="durable-") as folder:
        urls = {"BROKER_URL": redis_url, "DRAMATIQ_DURABLE_DATABASE_URL": url}
        with closing(App(Path(folder), _SOURCE, urls)) as app:
            yield app
