"""The monitor: enqueues stale audits again, gives up expired ones, deletes old ones."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import dramatiq
from dramatiq.logging import get_logger

from .backlog import Backlog
from .cleaning import Cleaning
from .errors import AuditLocked, DatabaseUnreachable, SchemaMismatch
from .exposition import LOOPBACK, Exposition
from .grace import Grace
from .liveness import Liveness
from .middleware import find_middleware
from .models import RUNNING
from .options import check_positive, retentions
from .outages import is_outage
from .pace import MAX_RATE, Pace
from .passes import Pass
from .presence import presence_of
from .recovery import Recovery, turned
from .resting import Resting
from .search import Search
from .stopping import Stop, at_signals
from .store import Stale, Store

LONGEST_PAUSE = 10.0  # seconds
LONGEST_RECOVERY = 5.0  # seconds; then the rest waits for the next pass, which comes at once
LONGEST_CLEANUP = 1.0  # the same

Serve: TypeAlias = Callable[[Store, Pass], None]

#: Stale audits that are counted when a pass is cut; counting takes time, too.
MOST_COUNTED = 100_000

#: One in so many of the stale audits is of the latest, which else would wait for all older ones.
SHARE_OF_LATEST = 10


class Monitor:
    """Recovers the durable messages of *broker*; any number of monitors may run at once.

    Parameters:
      broker: A broker with a DurableMiddleware, and the actors declared on it.
      interval: Seconds between two passes.
      batch_size: How many audits are read or deleted at a time.
      max_rate: How many messages this monitor sends per second at most, so that
        what comes back after an outage does not crowd out what is sent now.
      expiration: Instead of the middleware's ``expiration``.
      dry_run: Count, but change and send nothing.
      health_file: Touched by :meth:`run` after each pass that met no error of a database.
      prometheus_port: Where :meth:`run` serves metrics, on *prometheus_host*.  Default: nowhere.

    Raises:
      DurableError: The broker has no DurableMiddleware.
      OptionError: A number that must be positive is not.
    """

    def __init__(
        self,
        broker: dramatiq.Broker,
        *,
        interval: float = 1.0,
        batch_size: int = 500,
        max_rate: float = MAX_RATE,
        expiration: timedelta | None = None,
        dry_run: bool = False,
        health_file: str | os.PathLike[str] | None = None,
        prometheus_port: int | None = None,
        prometheus_host: str = LOOPBACK,
    ) -> None:
        check_positive("Monitor", interval=interval, batch_size=batch_size, max_rate=max_rate)
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.interval = interval
        self.batch_size = batch_size
        self.dry_run = dry_run
        self.middleware = find_middleware(broker)
        options = self.middleware.options
        self.expiration = (
            expiration if expiration is not None else timedelta(milliseconds=options["expiration"])
        )
        self._recovery = Recovery(self.middleware, self.expiration, dry_run=dry_run)
        self._presence = presence_of(broker)
        self._backlog = Backlog(self._presence, batch_size)
        self._search = Search(self._presence)
        self._stopped = Stop()
        self._pace = Pace(max_rate, self._stopped)
        self._cleaning = Cleaning(self._stopped, retentions(options), batch_size)
        self._longest = math.inf  # seconds that a pass spends on the stale audits of a store
        self._cut = False
        self._unfinished: list[str] = []  # what a pass that was cut has left, in words
        self._halted = False  # stopped while it waited for the next message's time
        self._outages = 0
        self._resting = Resting(self._pause)
        self._unchecked: set[Any] = set()  # tables that may lack a column
        self._grace = Grace()
        self.liveness = Liveness(self.middleware, interval, health_file)
        self._exposition = Exposition(self.middleware, prometheus_port, prometheus_host)

    def run_once(self) -> Pass:
        """Make one pass.

        An error of one database is raised after the others have been served.

        Raises:
          DatabaseUnreachable: The database does not answer.
          SchemaMismatch: The table is missing, or of another version.
        """
        done, errors = self._pass(self.middleware.stores())
        if not errors:
            return done
        self._log(done)
        first, *others = errors.values()
        for error in others:
            self.logger.warning("%s", error)
        raise first

    def run(self) -> None:
        """Make passes until :meth:`stop`.

        An outage of the broker makes the pauses longer.  A database that fails
        is left alone for a while, longer each time; the others are served meanwhile.

        In the main thread the signals TERM and INT call :meth:`stop`; when this would return
        they get to the handlers that they had before.

        Raises:
          SchemaMismatch: Each table is missing, or of another version, at the start.
          MetricsNotServed: Nobody can listen on *prometheus_port*.
        """
        with self._exposition.served(), at_signals(self.stop):
            self._run()

    def _run(self) -> None:
        self._presence.expect()
        self._unchecked = {store.audit for store in self.middleware.stores()}
        self._longest = LONGEST_RECOVERY
        while not self._stopped.is_set():
            try:
                self._next_pass()
            except SchemaMismatch:
                raise
            except Exception:
                self._outages += 1
                self._cut = False
                self._exposition.passes.fail()
                self.logger.exception("This pass failed; the next one may not.")
            if not self._cut:
                self._stopped.wait(self._pause(self._outages))
        self.liveness.stopped(self._resting.failing())

    def stop(self) -> None:
        """Let :meth:`run` return after the pass it is making; may be called from a signal handler.

        A pass with more to do than a batch of each kind is cut after the batch it is working on, or at
        once if it waits, for it must not send faster.  The next pass, or another monitor, goes on with it.
        """
        self._stopped.set()

    def _next_pass(self) -> None:
        stores = self.middleware.stores()
        awake = self._resting.awake(stores)
        began = time.monotonic()
        done, errors = self._pass(awake)
        self._log(done)
        mismatches = [e for e in errors.values() if isinstance(e, SchemaMismatch)]
        if len(mismatches) == len(stores) and {s.audit for s in stores} <= self._unchecked:
            raise mismatches[0]
        self._resting.note(awake, errors)
        if not self.dry_run:
            failing = self._resting.failing()
            self._exposition.passes.add(done, began, failed=bool(errors), good=not failing)
            self.liveness.passed(done, failing)

    def _log(self, done: Pass) -> None:
        if done:
            self.logger.info("%s.", "; ".join([str(done).capitalize(), *self._unfinished]))

    def _pass(self, stores: Sequence[Store]) -> tuple[Pass, dict[Store, Exception]]:
        """Serve *stores*, each whatever happens to the others; their errors are returned."""
        done = self._recovery.begin(timedelta(seconds=self._pause(self._outages)))
        self._backlog.begin()
        self._search.begin(read_only=self.dry_run)
        self._cut = False
        self._unfinished.clear()
        errors: dict[Store, Exception] = {}
        self._each(stores, self._recover, errors)
        self._each(stores, self._find, errors)
        self._recovery.end()
        if errors or self.dry_run:
            self._search.give_up()
        self._cut = self._cut and not errors and not done.outage
        self._search.end(self.middleware.stores())
        self._each(stores, self._cleanup, errors)
        self._outages = self._outages + 1 if done.outage else 0
        return done, errors

    def _each(self, stores: Sequence[Store], serve: Serve, errors: dict[Store, Exception]) -> None:
        for store in stores:
            if store not in errors:
                try:
                    serve(store.reserved(), self._recovery.done)
                except Exception as error:
                    errors[store] = error
                    if isinstance(error, DatabaseUnreachable):
                        self._grace.expect(store.audit)

    def _recover(self, store: Store, done: Pass) -> None:
        """Send what is stale, and not just waiting; the oldest first, and of the latest a few."""
        if store.audit in self._unchecked:
            store.check_table()
            self._unchecked.remove(store.audit)
        end = time.monotonic() + self._longest
        last: Stale | None = None
        while not done.outage:
            batch = store.stale(self.batch_size, after=last)
            self._send(store, batch, done)
            if len(batch) < self.batch_size:
                return
            if self._is_over(end):
                left = store.count_stale(MOST_COUNTED)
                self._unfinished.append(f"{'at least ' * (left == MOST_COUNTED)}{left} to go")
                return
            last = batch[-1]
            if self._longest < math.inf:
                self._send(store, store.latest(self.batch_size // SHARE_OF_LATEST + 1), done)

    def _find(self, store: Store, done: Pass) -> None:
        """Send what the broker has lost."""
        end = time.monotonic() + self._longest
        try:
            while (batch := self._search.next_batch(store)) is not None:
                self._act(store, batch, done, hopeless=False)
                if done.outage:
                    self._search.put_back(store, batch)
                if done.outage or self._is_over(end):
                    self._unfinished.append("the search for what the broker has lost goes on")
                    return
        except Exception as error:
            if not is_outage(error):
                raise
            self.logger.debug("The broker tells nothing (%s).", type(error).__name__)
            self._search.give_up()

    def _is_over(self, end: float) -> bool:
        """Whether the pass has to end, in the middle of what there is to do."""
        self._cut = self._cut or time.monotonic() >= end
        return self._cut or self._stopped.is_set()

    def _send(self, store: Store, batch: Sequence[Stale], done: Pass) -> None:
        held = self._backlog.held(store, batch)
        try:
            # Of several monitors at the same audits each counts those that it was first at.
            done.note("held", held[: len(held) if self.dry_run else store.hold(held)])
        except AuditLocked:
            self.logger.debug("An audit that waits is locked; the next pass asks again.")
        ids = {stale.id for stale in held}
        graced = self._grace.has(store.audit)
        wanted = [
            stale
            for stale in batch
            if stale.id not in ids and not (graced and stale.state == RUNNING)
        ]
        self._act(store, wanted, done)

    def _act(
        self, store: Store, rest: Sequence[Stale], done: Pass, *, hopeless: bool = True
    ) -> None:
        while rest and not done.outage and not self._halted:
            part, rest = self._recovery.split(store, rest, self._pace.burst)
            before = done.recovered
            try:
                if not self._recovery.act(store, part, hopeless=hopeless):
                    rest = turned(rest)
            except AuditLocked:
                self.logger.debug("%s audits are locked; passed by.", len(part))
            self._halted = not self._pace.spend(done.recovered - before)

    def _cleanup(self, store: Store, done: Pass) -> None:
        if self.dry_run:
            done.deleted += self._cleaning.count(store)
            return
        seconds = LONGEST_CLEANUP if self._longest < math.inf else math.inf
        deleted, is_cut = self._cleaning.clean(store, seconds)
        done.deleted += deleted
        self._cut = self._cut or (is_cut and not done.outage)

    def _pause(self, failures: int) -> float:
        """Seconds to wait: the interval, doubled for each failure in a row."""
        longest = max(LONGEST_PAUSE, self.interval)
        return min(self.interval * 2.0 ** min(failures, 10), longest)
