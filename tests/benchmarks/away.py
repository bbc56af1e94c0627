"""A database that is not on the same machine."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg

from tests.support.app import Process

from .cpu import cpu_seconds
from .end_to_end import loading
from .peers import ours, plain
from .rounds import Spread, in_turn, table
from .send import cpu
from .servers import Servers
from .stand import Measured, Stand

THREADS = 64
DISTANCE = 5  # milliseconds, there and back
PINGS = 50


def benchmark(rounds: int) -> Iterator[str]:
    near, far = plain(threads=THREADS), ours("postgres", threads=THREADS)
    with Servers() as servers, ExitStack() as stack:
        stands = [stack.enter_context(loading(servers, peer)) for peer in (near, far, far)]
        line = Line(stands[2])
        stack.callback(line.close)
        names = [near.name, f"{far.name}, beside it", f"{far.name}, {DISTANCE} ms away"]
        ping = line.ping()
        results = in_turn(
            {
                names[0]: stands[0].work,
                names[1]: stands[1].work,
                names[2]: lambda: line.watch(stands[2]),
            },
            rounds,
            warm_up=False,
        )
    yield (
        f"One process of {THREADS} threads, Redis beside it; the rest as in end-to-end. The line to the database is a proxy: a "
        f"SELECT of nothing took {ping * 1000:.1f} ms by it, and it was busy for {Spread(line.busy)} of the time."
    )
    rates = {name: Spread([each.per_second for each in results[name]]) for name in names}
    rows = [
        [name, rates[name], rates[name].over(rates[names[0]]), *cpu(results[name])]
        for name in names
    ]
    yield table(["", "per second", "of plain", "CPU, worker", "CPU, database"], rows)


class Line:
    """A longer way to the database of *made*, by a process of its own; the workers of *made* take it."""

    def __init__(self, made: Stand) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.line", made.database.url, str(DISTANCE)]
        self._process = Process(command, made.app)
        self._process.wait_for("\n")
        self._url = self._process.output().strip()
        made.app.environment["DATABASE_URL"] = self._url
        self.busy: list[float] = []  # the part of a core that it has used in each run

    def ping(self) -> float:
        """The median of the seconds that an empty statement takes."""
        times = []
        with psycopg.connect(self._url, autocommit=True) as connection:
            for _ in range(PINGS):
                began = time.perf_counter()
                connection.execute("SELECT 1")
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def watch(self, made: Stand) -> Measured:
        before = cpu_seconds(self._process.pid)
        measured = made.work()
        took = made.peer.jobs / measured.per_second
        self.busy.append((cpu_seconds(self._process.pid) - before) / took)
        return measured

    def close(self) -> None:
        self._process.kill()
