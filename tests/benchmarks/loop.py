"""How long an event loop stands still while its coroutines send."""

from __future__ import annotations

import functools
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.app import App, Process

from .application import Application, processes_of
from .away import DISTANCE
from .rounds import Spread, in_turn, table
from .servers import Servers
from .ticking import AT_ONCE, RATE, SECONDS

WAYS = ("nothing", "send", "send_async")


@dataclass(frozen=True)
class Lag:
    p50: float  # milliseconds
    p99: float
    most: float
    per_second: float


def benchmark(rounds: int) -> Iterator[str]:
    with Servers() as servers, ExitStack() as stack:
        redis_url = stack.enter_context(servers.redis.fresh())
        near = stack.enter_context(servers.postgres.fresh())
        application = Application(redis_url, near)
        stack.callback(application.close)
        application.durable.create_tables()
        apps = {"beside it": stack.enter_context(processes_of(redis_url, near))}
        far = stack.enter_context(_farther(near, apps["beside it"]))
        apps[f"{DISTANCE} ms away"] = stack.enter_context(processes_of(redis_url, far))
        cases = {
            f"{way}, PostgreSQL {place}": functools.partial(_lag, app, way)
            for place, app in apps.items()
            for way in WAYS
        }
        results = in_turn(cases, rounds, warm_up=False)
    yield (
        f"{RATE} requests per second, for {SECONDS} s, of which each sends one message; a tick is due in each millisecond. "
        f"How late the ticks are, in ms; then {AT_ONCE:,} messages at once."
    )
    rows: list[list[object]] = []
    for name, found in results.items():
        late = [
            Spread(values) for values in zip(*((e.p50, e.p99, e.most) for e in found), strict=True)
        ]
        rate = Spread([each.per_second for each in found])
        rows.append([name, *late, "-" if name.startswith("nothing") else rate])
    yield table(["", "p50", "p99", "max", "per second"], rows)


def _lag(app: App, way: str) -> Lag:
    done = app.python(f"from tests.benchmarks.ticking import main; main({way!r})", timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lags, per_second = json.loads(done.stdout)
    percentiles = statistics.quantiles([lag * 1000 for lag in lags], n=100, method="inclusive")
    return Lag(percentiles[49], percentiles[98], max(lags) * 1000, per_second)


@contextmanager
def _farther(url: str, app: App) -> Iterator[str]:
    """The URL of a longer way to the database."""
    line = Process([sys.executable, "-m", "tests.benchmarks.line", url, str(DISTANCE)], app)
    try:
        line.wait_for("\n")
        yield line.output().strip()
    finally:
        line.kill()
