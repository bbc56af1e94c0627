"""The application: its broker, its jobs, and what they note in the ledger.

The environment names servers, seed, chance of death; see :mod:`tests.chaos.lane`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
import peewee
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware, RequeueImmediately, current_audit
from dramatiq_durable.store import Store

from . import mutants
from .ledger import Ledger
from .points import Points
from .settings import HEARTBEAT, OPTIONS

FOLDER = Path(os.environ["CHAOS_FOLDER"])
PLAIN = os.environ.get("CHAOS_PLAIN") == "1"

ledger = Ledger(FOLDER)
db: peewee.Database = connect(os.environ["DATABASE_URL"])


def _broker(url: str) -> dramatiq.Broker:
    if url.startswith("redis"):
        return RedisBroker(url=url, heartbeat_timeout=5_000)
    return RabbitmqBroker(
        url=f"{url}?heartbeat=5&blocked_connection_timeout=5", confirm_delivery=True
    )


broker = _broker(os.environ["BROKER_URL"])
broker.add_middleware(AsyncIO())
if not PLAIN:
    broker.add_middleware(
        DurableMiddleware(
            db, retention=int(os.environ.get("CHAOS_RETENTION", "86400000")), **OPTIONS
        )
    )
dramatiq.set_broker(broker)
actor = functools.partial(
    dramatiq.actor, **({} if PLAIN else {"durable": True}), min_backoff=200, max_backoff=1_000
)


class Effect(peewee.Model):
    job = peewee.CharField(index=True)

    class Meta:
        database = db


def token() -> int:
    audit = current_audit()
    return 0 if audit is None else audit.token


@contextmanager
def run_of(job: str) -> Iterator[None]:
    """The body of a job: what it does in the block is before its effect."""
    ledger.write("START", job, token())
    yield
    ledger.write("EFFECT", job, token())
    ledger.write("END", job, token())


@actor
def quick(job: str) -> None:
    with run_of(job):
        pass


@actor
def slow(job: str, seconds: float = 1.5 * HEARTBEAT) -> None:
    with run_of(job):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)


@actor
def failing(job: str) -> None:
    with run_of(job):
        if token() == 1:
            raise ValueError("the first time it fails")


@actor
def again(job: str) -> None:
    with run_of(job):
        if token() == 1:
            raise RequeueImmediately


@actor
async def coroutine(job: str) -> None:
    with run_of(job):
        await asyncio.sleep(0.2)


@actor
def exact(job: str) -> None:
    audit = current_audit()
    assert audit is not None
    ledger.write("START", job, token())
    with audit.transaction():
        Effect.create(job=job)
    ledger.write("EFFECT", job, token())
    ledger.write("END", job, token())


def pulse() -> None:
    """Note whenever this process stands still, for whatever reason."""
    last = time.monotonic()
    while True:
        time.sleep(0.1)
        now = time.monotonic()
        if now - last > HEARTBEAT:
            ledger.write("STALL", os.getpid(), f"{now - last:.3f}")
        last = now


def _note_marks() -> None:
    mark = Store.mark

    def marked(self: Store, stale: Any, backoff: Any) -> Any:
        result = mark(self, stale, backoff)
        if result is not None:
            ledger.write("MARK", stale.message_id, stale.epoch, stale.due_at.isoformat())
        return result

    Store.mark = marked  # type: ignore[method-assign, assignment]


_note_marks()
if "CHAOS_MUTANT" in os.environ:
    mutants.install(os.environ["CHAOS_MUTANT"])
points = Points(
    ledger, float(os.environ.get("CHAOS_CHANCE", "0")), os.environ.get("CHAOS_SEED", "0")
)
points.install(broker)
threading.Thread(target=pulse, daemon=True).start()
