"""What deleting finished audits costs: rows per second, its longest statement, and who sends and claims meanwhile."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from dramatiq_durable import Monitor

from . import bloat, databases
from .application import Application, standing
from .monitors import Monitors
from .rounds import ROUNDS, Spread, in_turn, table
from .rows import empty, fill

EXPIRED = 20_000

#: Rows that stay, and so are in the way of those that go.
KEPT = 20_000

SENT = 300


@dataclass(frozen=True)
class Latencies:
    """Of many calls, in milliseconds."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.values, n=100)[98]


class Cleanup:
    def __init__(self, application: Application, monitors: Monitors, expired: int) -> None:
        self._application = application
        self._store = application.durable.store
        self._monitors = monitors
        self._expired = expired

    def alone(self) -> tuple[float, float]:
        """Rows per second, and the longest statement in milliseconds."""
        self._refill()
        monitor = Monitor(self._application.broker)
        longest = [0.0]
        hooks: list[Any] = self._store.database.query_hooks  # which our own connections share
        hooks.append(lambda event: longest.append(event.duration))
        began = time.perf_counter()
        assert monitor.run_once().deleted == self._expired
        took = time.perf_counter() - began
        hooks.clear()
        return self._expired / took, max(longest) * 1_000

    def nobody(self) -> dict[str, Latencies]:
        """What sending and claiming takes while nothing is deleted."""
        self._refill()
        return self._calls(SENT)

    def beside(self) -> dict[str, Latencies]:
        """The same while a monitor deletes."""
        self._refill()
        began = self._monitors.begin(1)
        calls = self._calls(None, began[0].exists)
        [done] = self._monitors.end(began)
        assert done.deleted == self._expired
        return calls

    def _refill(self) -> None:
        empty(self._store)
        fill(self._store, self._application.send(), completed=KEPT, expired=self._expired)
        self._application.broker.flush_all()

    def _calls(self, most: int | None, is_over: Any = lambda: False) -> dict[str, Latencies]:
        sends, claims = [], []
        for number in count():
            if number == most or is_over():
                return {"send": Latencies(sends), "claim": Latencies(claims)}
            began = time.perf_counter()
            message_id = self._application.send().message_id
            sent = time.perf_counter()
            assert self._store.claim(message_id, 0, f"claim {number}", worker="worker:1:Thread-1")
            claims.append((time.perf_counter() - sent) * 1_000)
            sends.append((sent - began) * 1_000)
        raise AssertionError


def run(rounds: int, expired: int = EXPIRED) -> Iterator[str]:
    deleted, beside = [], []
    with databases.redis() as redis_url:
        for kind in databases.KINDS:
            with standing(kind, redis_url) as (application, processes):
                cleanup = Cleanup(application, Monitors(processes, 1), expired)
                alone = in_turn({"": cleanup.alone}, rounds)[""]
                deleted.append([kind, *map(Spread, zip(*alone, strict=True))])
                cases = {"": cleanup.nobody, "deletes": cleanup.beside}
                beside += [[kind, *line] for line in _slowed(*in_turn(cases, rounds).values())]
    yield f"{expired:,} audits of {expired + KEPT:,} are past their retention, and are deleted:"
    yield table(["", "per second", "longest statement, ms"], deleted)
    yield "Milliseconds, alone and while a monitor deletes:"
    yield table(["", "", "median", "", "", "p99", "", ""], beside)
    yield from bloat.run()


def _slowed(
    alone: list[dict[str, Latencies]], beside: list[dict[str, Latencies]]
) -> Iterator[list[object]]:
    for what in ("send", "claim"):
        line: list[object] = [what]
        for value in ("median", "p99"):
            before, then = (
                Spread([getattr(of_round[what], value) for of_round in rounds])
                for rounds in (alone, beside)
            )
            line += [before, then, f"x {then.over(before)}"]
        yield line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--expired", type=int, default=EXPIRED)
    options = parser.parse_args()
    for part in run(options.rounds, options.expired):
        print(part, flush=True)
