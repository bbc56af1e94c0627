"""What senders notice of a recovery: jobs sent per second alone, and while a monitor sends lost ones again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from dramatiq_durable.pace import MAX_RATE
from tests.support.app import App

from . import databases
from .application import Application, standing
from .monitors import UNBOUNDED
from .rounds import Spread, in_turn, table
from .rows import empty, fill

#: More than are sent again in a measurement.
LOST = 30_000

SECONDS = 2.0


def run(rounds: int) -> Iterator[str]:
    with (
        databases.redis() as redis_url,
        standing(databases.POSTGRES, redis_url) as (application, processes),
    ):
        cases = {
            "alone": lambda: _alone(application),
            f"a monitor sends {MAX_RATE:,.0f} per second, the default": (
                lambda: _beside(application, processes, MAX_RATE)
            ),
            "a monitor sends as fast as it can": (
                lambda: _beside(application, processes, UNBOUNDED)
            ),
        }
        rates = {name: Spread(of_round) for name, of_round in in_turn(cases, rounds).items()}
    yield "Jobs that one process sends per second, on PostgreSQL:"
    yield table(
        ["meanwhile", "per second", ""],
        [[name, rate, f"x {rate.over(rates['alone'])}"] for name, rate in rates.items()],
    )


def send_for(application: Application, seconds: float) -> int:
    """How many are sent meanwhile."""
    end = time.monotonic() + seconds
    for sent in itertools.count():
        if time.monotonic() >= end:
            return sent
        application.send()
    raise AssertionError


def _alone(application: Application) -> float:
    _lose(application)
    return send_for(application, SECONDS) / SECONDS


def _beside(application: Application, processes: App, max_rate: float) -> float:
    _lose(application)
    monitor = processes.monitor("--max-rate", str(max_rate))
    monitor.wait_for("Monitoring")
    rate = send_for(application, SECONDS) / SECONDS
    monitor.kill()
    store = application.durable.store
    assert any(tally.stale for tally in store.tallies()), "all was sent again too soon"
    return rate


def _lose(application: Application) -> None:
    empty(application.durable.store)
    fill(application.durable.store, application.send(), lost=LOST)
    application.broker.flush_all()
