"""What databases say of their audits, as often as somebody asks, but no more often than is good for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from dramatiq.logging import get_logger

from .connections import Connections
from .errors import reason
from .store import Store, Tally

#: Seconds that a reading is good for at least.
GOOD_FOR = 5.0
#: It is good for so many times as long as it took, so that reading is a small part of what a database does.
SHARE = 10
#: Seconds for which somebody who asks waits for one.
PATIENCE = 3.0


@dataclass(frozen=True)
class Reading:
    """What the tables of one database say."""

    tallies: Sequence[Tally]
    oldest_stale: timedelta  # zero when nothing is stale


class Readings:
    """Asks each database in a thread of its own, so that one that hangs holds up nobody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[Connections, Reader] = {}

    def latest(self, stores: Sequence[Store]) -> list[Reading | None]:
        """A reading of each database of *stores*; None for one that does not answer."""
        by_database: dict[Connections, list[Store]] = {}
        for store in stores:
            by_database.setdefault(store.connections, []).append(store)
        with self._lock:
            for connections in by_database:
                self._readers.setdefault(connections, Reader())
            readers = [self._readers[connections] for connections in by_database]
            for reader, its_stores in zip(readers, by_database.values(), strict=True):
                reader.ask(its_stores)
        end = time.monotonic() + PATIENCE
        return [reader.answer(end) for reader in readers]


class Reader:
    """Reads one database at a time, when it is asked and the last reading is not good any more.

    Until the next one is there the last one stands for as long again.
    """

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._thread: threading.Thread | None = None
        self._last: Reading | None = None
        self._good_until = 0.0  # by the monotonic clock
        self._stands_until = 0.0
        self._warned: set[type] = set()

    def ask(self, stores: Sequence[Store]) -> None:
        """Begin a reading, if it is time for one; one thread at a time asks."""
        is_reading = self._thread is not None and self._thread.is_alive()
        if not is_reading and time.monotonic() >= self._good_until:
            self._thread = threading.Thread(target=self._attempt, args=(stores,), daemon=True)
            self._thread.start()

    def answer(self, end: float) -> Reading | None:
        """What was read last, as soon as the reading that is under way is done, or at *end*."""
        assert self._thread is not None, "nobody has asked"
        self._thread.join(max(end - time.monotonic(), 0))
        stands = not self._thread.is_alive() or time.monotonic() < self._stands_until
        return self._last if stands else None

    def _attempt(self, stores: Sequence[Store]) -> None:
        began = time.monotonic()
        try:
            reading = _read(stores)
        except Exception as error:
            self._last = None
            self._good_until = time.monotonic() + GOOD_FOR
            if type(error) not in self._warned:
                self._warned.add(type(error))
                self.logger.warning("A database is missing in the metrics: %s.", reason(error))
            return
        self._warned.clear()
        now = time.monotonic()
        good_for = max(GOOD_FOR, SHARE * (now - began))
        self._good_until, self._stands_until = now + good_for, now + 2 * good_for
        self._last = reading


def _read(stores: Sequence[Store]) -> Reading:
    aside = [store.aside() for store in stores]
    tallies = [tally for store in aside for tally in store.tallies()]
    oldest = [store.oldest_stale() or timedelta(0) for store in aside]
    return Reading(tallies, max(oldest))
