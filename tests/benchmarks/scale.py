"""What each statement costs on a table with a million audits, against one with a thousand."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from dramatiq_durable import Monitor
from dramatiq_durable.store import Held

from . import databases
from .application import Application
from .databases import Fresh
from .rounds import ROUNDS, Spread, in_turn, table
from .rows import fill

FEW, MANY = 1_000, 1_000_000

#: Of ten audits one waits in its queue, and the others are complete.
COMPLETED = 0.9

LONG = {"job_timeout": 86_400_000}

#: How often each thing is done in a round.
TIMES = 100


class Work:
    """What senders, workers and a monitor do with a table of so many *rows*; in milliseconds."""

    def __init__(self, application: Application, rows: int) -> None:
        self._application = application
        self._store = application.durable.store
        self._monitor = Monitor(application.broker)
        completed = int(rows * COMPLETED)
        application.durable.create_tables()
        # So long as it may take to fill the table, they must not become due.
        sent = application.broker.enqueue(application.message().copy(options=LONG))
        fill(self._store, sent, completed=completed, waiting=rows - completed)

    def once(self) -> dict[str, float]:
        """What each takes; afterwards the table has as many rows as before."""
        sent, holds = [], []
        took = {
            "a pass with nothing due": _each(self._pass),
            "send": _each(lambda: sent.append(self._application.send().message_id)),
            "claim": _each(lambda: holds.append(self._claim(sent[len(holds)]))),
            "complete": _each(lambda: self._complete(holds.pop())),
        }
        audit = self._store.audit
        with self._store.database.connection_context():
            audit.delete().where(audit.message_id.in_(sent)).execute()
        self._application.broker.flush_all()
        return took

    def _pass(self) -> None:
        assert not self._monitor.run_once()

    def _claim(self, message_id: str) -> Held:
        held = self._store.claim(message_id, 0, "0123456789abcdef" * 2, worker="worker:1:Thread-1")
        assert held is not None
        return held

    def _complete(self, held: Held) -> None:
        assert not self._store.complete([held])


def _each(act: Callable[[], object]) -> float:
    """The median, for now and then a call meets what the database does beside it."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1_000)
    return statistics.median(took)


def run(rounds: int, rows: int = MANY) -> Iterator[str]:
    yield (
        f"Milliseconds, with {FEW:,} and with {rows:,} audits in the table, "
        f"{COMPLETED:.0%} of them completed and the others not due:"
    )
    with databases.redis() as redis_url:
        lines = [line for kind in databases.KINDS for line in _lines(kind, redis_url, rounds, rows)]
    yield table(["", "", f"{FEW:,}", f"{rows:,}", ""], lines)


def _lines(kind: str, redis_url: str, rounds: int, rows: int) -> Iterator[list[object]]:
    with ExitStack() as stack:
        fresh = stack.enter_context(databases.database(kind))
        work = {count: _work(stack, fresh, redis_url, count) for count in (FEW, rows)}
        cases = {str(count): each.once for count, each in work.items()}
        few, many = in_turn(cases, rounds).values()
    for what in few[0]:
        of_few, of_many = (Spread([one[what] for one in each]) for each in (few, many))
        yield [kind, what, of_few, of_many, f"x {of_many.over(of_few)}"]


def _work(stack: ExitStack, fresh: Fresh, redis_url: str, rows: int) -> Work:
    url = stack.enter_context(fresh())
    application = Application(redis_url, url)
    stack.callback(application.close)
    return Work(application, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows", type=int, default=MANY)
    options = parser.parse_args()
    for part in run(options.rounds, options.rows):
        print(part, flush=True)
