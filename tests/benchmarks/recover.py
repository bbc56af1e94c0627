"""How fast lost jobs are sent again: many at once or each by itself, by one monitor or by two."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import dramatiq

from dramatiq_durable import Monitor
from dramatiq_durable.pipelining import Pipelining
from dramatiq_durable.store import MOST

from . import beside, databases, million
from .application import Application, standing
from .monitors import UNBOUNDED, Monitors
from .rounds import ROUNDS, Spread, in_turn, table
from .rows import empty, fill

LOST = 10_000

#: Each by itself they take so long that fewer have to be enough.
LOST_ONE_BY_ONE = 500


class OneByOne(Pipelining):
    """As if the broker took one message at a time: so are they read, marked and confirmed then."""

    @property
    def collects(self) -> bool:
        return False


class Recovery:
    """Jobs of one database that are lost, and sent again by monitors."""

    def __init__(self, application: Application, monitors: Monitors) -> None:
        self._application = application
        self._monitors = monitors
        application.durable.pipelining = OneByOne(application.broker)

    def one_by_one(self, lost: int) -> float:
        """By a monitor in this process; per second."""
        self._lose(lost)
        monitor = Monitor(self._application.broker, max_rate=UNBOUNDED)
        began = time.perf_counter()
        assert monitor.run_once().recovered == lost
        took = time.perf_counter() - began
        self._check(lost)
        return lost / took

    def by_processes(self, monitors: int, lost: int) -> float:
        """By so many that begin at the same moment; per second, all together."""
        self._lose(lost)
        done = self._monitors.end(self._monitors.begin(monitors))
        assert sum(each.recovered for each in done) == lost
        self._check(lost)
        return lost / (max(each.ended for each in done) - min(each.began for each in done))

    def _lose(self, lost: int) -> None:
        store = self._application.durable.store
        empty(store)
        fill(store, self._application.send(), lost=lost)
        self._application.broker.flush_all()

    def _check(self, lost: int) -> None:
        """Each is in Redis, and none of them twice."""
        client, store = self._application.broker.client, self._application.durable.store
        bodies: Any = client.hvals("dramatiq:default.msgs")
        ids = {dramatiq.Message.decode(body).message_id for body in bodies}
        assert len(bodies) == len(ids) == client.llen("dramatiq:default") == lost
        with store.database.connection_context():
            sent = store.audit.select().where(store.audit.enqueue_count == 2)
            assert sent.count() == store.audit.select().count() == lost


def run(rounds: int, lost: int = LOST) -> Iterator[str]:
    yield f"{lost:,} lost jobs are sent again to Redis (each by itself {LOST_ONE_BY_ONE:,}), per second:"
    with databases.redis() as redis_url:
        rows = [[kind, *_compared(kind, redis_url, rounds, lost)] for kind in databases.KINDS]
    yield table(["", "each by itself", f"{MOST} at once", "", "two monitors", ""], rows)
    yield from beside.run(rounds)


def _compared(kind: str, redis_url: str, rounds: int, lost: int) -> list[object]:
    with standing(kind, redis_url) as (application, processes):
        recovery = Recovery(application, Monitors(processes, 2))
        cases = {
            "one by one": lambda: recovery.one_by_one(min(lost, LOST_ONE_BY_ONE)),
            "one": lambda: recovery.by_processes(1, lost),
            "two": lambda: recovery.by_processes(2, lost),
        }
        rates = {name: Spread(each) for name, each in in_turn(cases, rounds).items()}
    one_by_one, one, two = rates.values()
    return [one_by_one, one, f"x {one.over(one_by_one)}", two, f"x {two.over(one)}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--lost", type=int, default=LOST)
    parser.add_argument("--million", action="store_true", help="a million instead, once")
    options = parser.parse_args()
    parts = million.run() if options.million else run(options.rounds, options.lost)
    for part in parts:
        print(part, flush=True)
