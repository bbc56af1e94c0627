"""What this process holds in one database, and the one thread that renews and completes it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from dramatiq.logging import get_logger

from .errors import AuditLocked, DatabaseUnreachable
from .owed import LONGEST_PAUSE, Owed, completion, longer, warn_of
from .receiving import receive
from .store import Held, Store

#: Completions that may wait for the database before worker threads wait too.
COMPLETIONS = 1_000
BACKPRESSURE_PAUSE = 0.01  # seconds

#: Seconds that something which has come waits for others.
LINGER = 0.005

T = TypeVar("T")

Inbox: TypeAlias = "queue.SimpleQueue[Callable[[], object]]"

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
    apart: bool = False  # a renewal that included it has failed
    renew_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew_at = time.monotonic() + self.interval


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
        """Start the thread; it ends with the process, or when nobody has this keeper any more."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    ends = (weakref.ref(self), self._inbox)
                    thread = threading.Thread(
                        target=_run, args=ends, name="durable-keeper", daemon=True
                    )
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
            receive(written, max(timeout, 0))
        except queue.Empty:
            return False
        return True

    def _reset(self) -> None:
        self._inbox: Inbox = queue.SimpleQueue()
        weakref.finalize(self, self._inbox.put, _wake).atexit = False
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

    def turn(self, received: Callable[[], object]) -> None:
        """Take all that has come, *received* first, and do what is due."""
        received()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()
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
            self._pause = longer(self._pause)
        except Exception:
            # Nothing else would renew what this process holds.
            logger.exception("Unexpected failure while renewing and completing audits.")
            self._pause = LONGEST_PAUSE
        self._not_before = time.monotonic() + self._pause

    def seconds_to_work(self) -> float | None:
        now = time.monotonic()
        moments = [lease.renew_at for lease in self._leases.values() if not lease.suspended]
        moments += [owed.try_at for owed in self._owed]
        if self._done:
            moments.append(now)
        return max(min(moments) - now, self._not_before - now, 0) if moments else None

    def _renew(self) -> None:
        """Renew all leases when one of them is due: a statement for eight costs what one for one does.

        Those that made it fail, for somebody has locked their rows, are then renewed one by one, one in a
        round, so that what a round waits for them holds up no other.
        """
        now = time.monotonic()
        for lease in [each for each in self._leases.values() if each.ends and each.ends < now]:
            logger.warning(
                "Message %s has overrun its time limit; its lease is not renewed any more.",
                lease.held.message_id,
            )
            del self._leases[lease.held]
        leases = [each for each in self._leases.values() if not each.suspended]
        together = [each for each in leases if not each.apart]
        if any(each.renew_at <= now for each in together):
            for store, part in _by_store((each.store, each) for each in together):
                self._renew_all(store, part)
        apart = [each for each in leases if each.apart and each.renew_at <= now]
        if apart:
            lease = min(apart, key=lambda each: each.renew_at)
            self._renew_all(lease.store, [lease])

    def _renew_all(self, store: Store, leases: list[Lease]) -> None:
        try:
            refused = store.reserved().heartbeat([each.held for each in leases])
        except Exception as error:
            if _is_outage(error):
                raise
            for lease in leases:
                lease.apart = True
            if len(leases) == 1:
                [lease] = leases
                lease.renew_at = time.monotonic() + lease.interval
                logger.warning(
                    "The lease of message %s is not renewed: %s", lease.held.message_id, error
                )
            return
        for lease in leases:
            lease.apart = False
            lease.renew_at = time.monotonic() + lease.interval
            if lease.held in refused:
                del self._leases[lease.held]
                lease.on_lost()

    def _complete(self) -> None:
        for store, holds in _by_store((store, held) for held, store in self._done.items()):
            try:
                warn_of(store.reserved().complete(holds))
            except Exception as error:
                if _is_outage(error):
                    raise
                self._owed += [completion(store, held) for held in holds]
            for held in holds:
                del self._done[held]

    def _pay(self) -> None:
        """Write one thing that is owed; what it waits for a lock must not hold up the renewals."""
        due = [each for each in self._owed if each.try_at <= time.monotonic()]
        if due:
            [owed, *_] = due
            if owed.pay():
                self._owed.remove(owed)


def _run(keeper: weakref.ref[Keeper], inbox: Inbox) -> None:
    while True:
        strong = keeper()
        if strong is None:
            return
        seconds = strong.seconds_to_work()
        del strong
        try:
            received = receive(inbox, seconds)
            # Whatever comes meanwhile wakes nobody, and its statement costs no more.
            time.sleep(LINGER)
        except queue.Empty:
            received = _wake
        strong = keeper()
        if strong is not None:
            strong.turn(received)
        del strong, received


def _wake() -> None:
    """For the thread to look around."""


def _by_store(pairs: Iterable[tuple[Store, T]]) -> list[tuple[Store, list[T]]]:
    grouped: dict[Store, list[T]] = {}
    for store, each in pairs:
        grouped.setdefault(store, []).append(each)
    return list(grouped.items())


def _is_outage(error: Exception) -> bool:
    return isinstance(error, DatabaseUnreachable) and not isinstance(error, AuditLocked)
