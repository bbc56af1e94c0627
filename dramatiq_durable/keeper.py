"""What this process holds, and the one thread that renews and completes it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dramatiq.logging import get_logger

from .errors import DatabaseUnreachable
from .faults import Fault, fault_of
from .store import Held, Store

#: Completions that may wait for the database before worker threads wait too.
COMPLETIONS = 1_000

# Seconds between two tries of a database that does not answer.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

logger = get_logger(__name__)


@dataclass(eq=False)
class Lease:
    """A running audit that has to be renewed every *interval* seconds.

    *ends* is the moment of the monotonic clock after which it is left to run
    out, for the actor has overrun its time limit; None renews it for ever.
    """

    store: Store
    held: Held
    interval: float
    on_lost: Callable[[], None]
    ends: float | None = None
    suspended: bool = False
    renew_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew_at = time.monotonic() + self.interval


@dataclass(eq=False)
class Owed:
    """A release that could not be written, to be tried until *until* on the monotonic clock."""

    store: Store
    held: Held
    write: Callable[[Store], object]
    until: float


class Keeper:
    """Renews the leases of this process, and records the completions handed to it.

    Its thread starts with the first thing it gets, is a daemon, and is alone
    with a database connection of its own.
    """

    def __init__(self) -> None:
        self._reset()
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def hold(self, lease: Lease) -> None:
        with self._changed:
            self._leases[lease.held] = lease
            self._wake()

    def drop(self, held: Held) -> None:
        """Renew this lease no longer."""
        with self._changed:
            self._leases.pop(held, None)

    def suspend(self, held: Held, suspended: bool) -> None:
        """While somebody holds the row locked, a renewal would only wait for it."""
        with self._changed:
            lease = self._leases.get(held)
            if lease is not None:
                lease.suspended = suspended
                self._changed.notify_all()

    def complete(self, store: Store, held: Held) -> None:
        """Record that the job is done, soon; waits while too many are waiting already."""
        with self._changed:
            while len(self._done) >= COMPLETIONS:
                self._changed.wait()
            self._leases.pop(held, None)
            self._done.append((store, held))
            self._wake()

    def owe(self, owed: Owed) -> None:
        with self._changed:
            self._owed.append(owed)
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until everything handed over is written; False when *timeout* seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._done or self._owed), timeout)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._leases: dict[Held, Lease] = {}
        self._done: deque[tuple[Store, Held]] = deque()
        self._owed: list[Owed] = []
        self._thread: threading.Thread | None = None
        self._own: dict[Store, Store] = {}
        self._pause = 0.0
        self._not_before = 0.0

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="durable-keeper", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (wait := self._seconds_to_work()) is None or wait > 0:
                    self._changed.wait(wait)
                done = list(self._done)
                owed = list(self._owed)
                due = self._due_leases()
            try:
                self._complete(done)
                self._renew(due)
                self._pay(owed)
                self._pause = 0.0
            except DatabaseUnreachable as error:
                if not self._pause:
                    logger.warning("%s Renewals and completions wait.", error)
                self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE)
            except Exception:
                # Nothing else would renew what this process holds.
                logger.exception("Unexpected failure while renewing and completing audits.")
                self._pause = LONGEST_PAUSE
            self._not_before = time.monotonic() + self._pause

    def _seconds_to_work(self) -> float | None:
        now = time.monotonic()
        if self._done or self._owed:
            return self._not_before - now
        moments = [lease.renew_at for lease in self._leases.values() if not lease.suspended]
        return max(min(moments), self._not_before) - now if moments else None

    def _due_leases(self) -> list[Lease]:
        """All leases when one of them is due: a statement for eight costs what one for one does."""
        now = time.monotonic()
        for lease in [each for each in self._leases.values() if each.ends and each.ends < now]:
            logger.warning(
                "Message %s has overrun its time limit; its lease is not renewed any more.",
                lease.held.message_id,
            )
            del self._leases[lease.held]
        leases = [lease for lease in self._leases.values() if not lease.suspended]
        return leases if any(lease.renew_at <= now for lease in leases) else []

    def _complete(self, done: list[tuple[Store, Held]]) -> None:
        for store, held in _by_store(done):
            refused = self._reserved(store).complete(held)
            for lost in refused:
                logger.warning(
                    "Message %s was done, but its audit was no longer ours: another worker "
                    "has claimed it, or it was cancelled.",
                    lost.message_id,
                )
            with self._changed:
                written = set(held)
                self._done = deque(d for d in self._done if d[1] not in written)
                self._changed.notify_all()

    def _renew(self, due: list[Lease]) -> None:
        leases = {lease.held: lease for lease in due}
        for store, held in _by_store([(lease.store, lease.held) for lease in due]):
            for lost in self._heartbeat(self._reserved(store), held):
                self.drop(lost)
                leases[lost].on_lost()
        now = time.monotonic()
        for lease in due:
            lease.renew_at = now + lease.interval

    def _heartbeat(self, store: Store, holds: list[Held]) -> set[Held]:
        try:
            return store.heartbeat(holds)
        except DatabaseUnreachable as error:
            if len(holds) == 1 or not _was_locked(error):
                raise
        lost: set[Held] = set()
        for held in holds:
            try:
                lost |= store.heartbeat([held])
            except DatabaseUnreachable as error:
                if not _was_locked(error):
                    raise
                logger.warning(
                    "The audit of message %s is locked; renewal skipped.", held.message_id
                )
        return lost

    def _pay(self, owed: list[Owed]) -> None:
        for each in owed:
            if time.monotonic() < each.until:
                each.write(self._reserved(each.store))
            else:
                logger.warning(
                    "The database did not answer while the lease of message %s lasted; "
                    "the monitor will recover it.",
                    each.held.message_id,
                )
            with self._changed:
                self._owed.remove(each)
                self._changed.notify_all()

    def _reserved(self, store: Store) -> Store:
        if store not in self._own:
            self._own[store] = store.reserved()
        return self._own[store]


def _by_store(pairs: list[tuple[Store, Held]]) -> list[tuple[Store, list[Held]]]:
    grouped: dict[Any, list[Held]] = {}
    for store, held in pairs:
        grouped.setdefault(store, []).append(held)
    return list(grouped.items())


def _was_locked(error: DatabaseUnreachable) -> bool:
    cause = error.__cause__
    return cause is not None and fault_of(cause) is Fault.CONTENTION
