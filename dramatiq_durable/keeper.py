"""What this process holds in one database, and the one thread that renews and completes it."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dramatiq.logging import get_logger

from .errors import AuditLocked, DatabaseUnreachable
from .store import Held, Store

#: Completions that may wait for the database before worker threads wait too.
COMPLETIONS = 1_000
BACKPRESSURE_PAUSE = 0.01  # seconds

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
    """What could not be written, to be tried until *until* on the monotonic clock."""

    store: Store
    held: Held
    write: Callable[[Store], object]
    until: float
    pause: float = 0.0
    try_at: float = 0.0

    def put_off(self) -> None:
        self.pause = _longer(self.pause)
        self.try_at = time.monotonic() + self.pause


class Keeper:
    """Renews the leases that this process has in one database, and records the completions handed to it.

    Its thread is a daemon, alone with a database connection of its own.  What
    others ask of it they put into its inbox, which an interrupt that strikes them
    there leaves intact, as it would not a lock.
    """

    _thread: threading.Thread | None

    def __init__(self) -> None:
        self._reset()
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def start(self) -> None:
        """Start the thread; it is there until the process ends."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="durable-keeper", daemon=True)
                    thread.start()
                    self._thread = thread

    def hold(self, lease: Lease) -> None:
        self._inbox.put(lambda: self._leases.update({lease.held: lease}))

    def drop(self, held: Held) -> None:
        """Renew this lease no longer."""
        self._inbox.put(lambda: self._leases.pop(held, None))

    def suspend(self, held: Held, suspended: bool) -> None:
        """While somebody holds the row locked, a renewal would only wait for it."""
        self._inbox.put(lambda: self._suspend(held, suspended))

    def complete(self, store: Store, held: Held) -> None:
        """Record that the job is done, soon; waits while too many are waiting already."""
        while self._inbox.qsize() + len(self._done) + len(self._owed) >= COMPLETIONS:
            time.sleep(BACKPRESSURE_PAUSE)
        self._inbox.put(lambda: self._end(store, held))

    def owe(self, owed: Owed) -> None:
        self._inbox.put(lambda: self._owed.append(owed))

    def flush(self, timeout: float) -> bool:
        """Wait until everything handed over is written; False when *timeout* seconds were not enough."""
        if self._thread is None:
            return True
        written: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._inbox.put(lambda: self._flushes.append(written))
        try:
            written.get(timeout=max(timeout, 0))
        except queue.Empty:
            return False
        return True

    def _reset(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread = None
        # Of the thread alone.
        self._leases: dict[Held, Lease] = {}
        self._done: dict[Held, Store] = {}
        self._owed: list[Owed] = []
        self._flushes: list[queue.SimpleQueue[None]] = []
        self._pause = 0.0
        self._not_before = 0.0

    def _end(self, store: Store, held: Held) -> None:
        self._leases.pop(held, None)
        self._done[held] = store

    def _suspend(self, held: Held, suspended: bool) -> None:
        if held in self._leases:
            self._leases[held].suspended = suspended

    def _run(self) -> None:
        while True:
            self._receive()
            if time.monotonic() >= self._not_before:
                self._work()
            if not self._done and not self._owed:
                while self._flushes:
                    self._flushes.pop().put(None)

    def _work(self) -> None:
        try:
            self._renew()
            self._complete()
            self._pay()
            self._pause = 0.0
        except DatabaseUnreachable as error:
            if not self._pause:
                logger.warning("%s. Renewals and completions wait.", error)
            self._pause = _longer(self._pause)
        except Exception:
            # Nothing else would renew what this process holds.
            logger.exception("Unexpected failure while renewing and completing audits.")
            self._pause = LONGEST_PAUSE
        self._not_before = time.monotonic() + self._pause

    def _receive(self) -> None:
        """Wait for work, and take all that has come."""
        try:
            self._inbox.get(timeout=self._seconds_to_work())()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _seconds_to_work(self) -> float | None:
        now = time.monotonic()
        moments = [lease.renew_at for lease in self._leases.values() if not lease.suspended]
        moments += [owed.try_at for owed in self._owed]
        if self._done:
            moments.append(now)
        return max(min(moments) - now, self._not_before - now, 0) if moments else None

    def _renew(self) -> None:
        """Renew all leases when one of them is due: a statement for eight costs what one for one does."""
        now = time.monotonic()
        for lease in [each for each in self._leases.values() if each.ends and each.ends < now]:
            logger.warning(
                "Message %s has overrun its time limit; its lease is not renewed any more.",
                lease.held.message_id,
            )
            del self._leases[lease.held]
        due = {held: lease for held, lease in self._leases.items() if not lease.suspended}
        if not any(lease.renew_at <= now for lease in due.values()):
            return
        for store, holds in _by_store({held: lease.store for held, lease in due.items()}):
            refused, failed = _each(store.reserved().heartbeat, holds)
            for lost in refused:
                del self._leases[lost]
                due[lost].on_lost()
            for held, error in failed.items():
                logger.warning("The lease of message %s is not renewed: %s", held.message_id, error)
        now = time.monotonic()
        for lease in due.values():
            lease.renew_at = now + lease.interval

    def _complete(self) -> None:
        for store, holds in _by_store(self._done):
            refused, failed = _each(store.reserved().complete, holds)
            _warn_of(refused)
            for held, error in failed.items():
                if isinstance(error, AuditLocked):
                    self._complete_later(store, held)
                else:
                    logger.error(
                        "Message %s was done, but cannot be completed, and will run again: %s",
                        held.message_id,
                        error,
                    )
            for held in holds:
                del self._done[held]

    def _complete_later(self, store: Store, held: Held) -> None:
        owed = Owed(store, held, lambda own: _warn_of(own.complete([held])), math.inf)
        owed.put_off()
        self._owed.append(owed)

    def _pay(self) -> None:
        for owed in [each for each in self._owed if each.try_at <= time.monotonic()]:
            if self._paid(owed):
                self._owed.remove(owed)
            else:
                owed.put_off()

    def _paid(self, owed: Owed) -> bool:
        """Whether nothing is owed any more."""
        if time.monotonic() >= owed.until:
            logger.warning(
                "The database did not take what became of message %s while its lease lasted; "
                "the monitor will recover it.",
                owed.held.message_id,
            )
            return True
        _, failed = _each(lambda _: owed.write(owed.store.reserved()), [owed.held])
        for error in failed.values():
            if not owed.pause and not isinstance(error, AuditLocked):
                logger.error(
                    "What became of message %s cannot be written yet (%s).",
                    owed.held.message_id,
                    type(error).__name__,
                )
        return not failed


def _longer(pause: float) -> float:
    return min(max(2 * pause, SHORTEST_PAUSE), LONGEST_PAUSE)


def _warn_of(refused: set[Held]) -> None:
    for lost in refused:
        logger.warning(
            "Message %s was done, but its audit was no longer ours: another worker "
            "has claimed it, or it was cancelled.",
            lost.message_id,
        )


def _by_store(stores: dict[Held, Store]) -> list[tuple[Store, list[Held]]]:
    grouped: dict[Any, list[Held]] = {}
    for held, store in stores.items():
        grouped.setdefault(store, []).append(held)
    return list(grouped.items())


def _each(
    write: Callable[[Sequence[Held]], Any], holds: Sequence[Held]
) -> tuple[set[Held], dict[Held, Exception]]:
    """Write for all of *holds* in one statement, or, when that fails because of some, one by one.

    Returns:
      Those that were refused, and those that failed, with their errors.

    Raises:
      DatabaseUnreachable: Nothing can be written now.
    """
    try:
        return write(holds), {}
    except Exception as error:
        if isinstance(error, DatabaseUnreachable) and not isinstance(error, AuditLocked):
            raise
        if len(holds) == 1:
            return set(), {holds[0]: error}
    refused: set[Held] = set()
    failed: dict[Held, Exception] = {}
    for held in holds:
        lost, wrong = _each(write, [held])
        refused |= lost
        failed |= wrong
    return refused, failed
