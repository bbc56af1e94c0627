"""What the applications of these tests import: their broker, and what their actors do."""

from __future__ import annotations

import itertools
import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import DurableMiddleware
from tests.support.waiting import eventually

LONG = 30 * 86_400  # seconds of a backoff that no test waits for


def connected(url: str, **options: Any) -> dramatiq.Broker:
    kind = RedisBroker if url.startswith("redis") else RabbitmqBroker
    return kind(url=url, **options)


def durable_options(*, backoff: list[float], **options: Any) -> dict[str, Any]:
    """*backoff*: seconds after the first send, the second, …; the last counts for all that follow."""
    return {
        **options,
        "backoff": lambda enqueue_count: timedelta(
            seconds=backoff[min(enqueue_count, len(backoff)) - 1]
        ),
    }


def staged_broker() -> dramatiq.Broker:
    """The broker of this process, as its environment describes it."""
    broker = connected(os.environ["BROKER_URL"], **json.loads(os.environ["BROKER_OPTIONS"]))
    options = durable_options(**json.loads(os.environ["DURABLE_OPTIONS"]))
    broker.add_middleware(DurableMiddleware(os.environ["DATABASE_URL"], **options))
    dramatiq.set_broker(broker)
    return broker


def note(text: object, sheet: str = "notes") -> None:
    """Have an effect that the test can see."""
    with open(sheet, "a") as notes:
        notes.write(f"{text}\n")


def number(what: str) -> int:
    """1 for the first who asks, whatever process it is in; then 2, 3, …"""
    for count in itertools.count(1):
        try:
            with open(f"{what}-{count}", "x"):
                return count
        except FileExistsError:
            continue
    raise AssertionError


def first(what: str) -> bool:
    return number(what) == 1


def is_open(gate: str) -> bool:
    """Whether the test has opened *gate*."""
    return Path(f"gate-{gate}").exists()


def wait_at(gate: str) -> None:
    eventually(lambda: is_open(gate), timeout=120)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
