"""The monitor: enqueues stale audits again, gives up expired ones, deletes old ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dramatiq
import redis
from dramatiq.errors import BrokerConnectionError
from dramatiq.logging import get_logger

from .backoff import cubic_backoff
from .errors import DatabaseUnreachable, SchemaMismatch
from .messages import copy_of
from .middleware import find_middleware
from .models import RUNNING
from .options import FOR_EVER, Policy
from .store import Marked, Stale, Store

#: What a broker raises when it takes no message at all, whichever it is.
OUTAGES = (BrokerConnectionError, redis.RedisError, OSError)

# Seconds.
LONGEST_PAUSE = 60.0


@dataclass
class Pass:
    """What one pass of the monitor has done, in numbers of audits."""

    recovered: int = 0  # enqueued again
    dead: int = 0  # given up: past their expiration, or after max_crashes
    deleted: int = 0  # finished and older than their retention
    failed: int = 0  # could not be sent, and are set aside
    outage: bool = False  # the broker took nothing

    def __bool__(self) -> bool:
        return bool(self.recovered or self.dead or self.deleted or self.failed or self.outage)

    def __str__(self) -> str:
        text = (
            f"recovered {self.recovered}, dead {self.dead}, "
            f"deleted {self.deleted}, failed {self.failed}"
        )
        return f"{text}; the broker takes no messages" if self.outage else text


class Monitor:
    """Recovers the durable messages of *broker*; any number of monitors may run at once.

    Parameters:
      broker: A broker with a DurableMiddleware, and the actors declared on it.
      interval: Seconds between two passes.
      batch_size: How many audits are read at a time.
      expiration: Instead of the middleware's ``expiration``.
      dry_run: Count, but change and send nothing.

    Raises:
      DurableError: The broker has no DurableMiddleware.
    """

    def __init__(
        self,
        broker: dramatiq.Broker,
        *,
        interval: float = 1.0,
        batch_size: int = 500,
        expiration: timedelta | None = None,
        dry_run: bool = False,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.interval = interval
        self.batch_size = batch_size
        self.dry_run = dry_run
        self.middleware = find_middleware(broker)
        options = self.middleware.options
        self.expiration = expiration if expiration is not None else _duration(options["expiration"])
        self.retention = _duration(options["retention"])
        dead_retention = options["dead_retention"]
        self.dead_retention = None if dead_retention == FOR_EVER else _duration(dead_retention)
        self._stopped = threading.Event()
        self._outages = 0

    def run_once(self) -> Pass:
        """Make one pass.

        Raises:
          DatabaseUnreachable: The database does not answer.
          SchemaMismatch: The table is missing, or of another version.
        """
        done = Pass()
        for store in self.middleware.stores():
            self._recover(store, done)
            self._cleanup(store, done)
        self._outages = self._outages + 1 if done.outage else 0
        return done

    def run(self) -> None:
        """Make passes until :meth:`stop`; an outage of broker or database makes the pauses longer.

        Raises:
          SchemaMismatch: The table is missing, or of another version.
        """
        while not self._stopped.is_set():
            try:
                done = self.run_once()
                if done:
                    self.logger.info("%s.", str(done).capitalize())
            except DatabaseUnreachable as error:
                self._outages += 1
                self.logger.warning("%s The monitor waits.", error)
            except SchemaMismatch:
                raise
            except Exception:
                self._outages += 1
                self.logger.exception("This pass failed; the next one may not.")
            self._stopped.wait(self._pause())

    def stop(self) -> None:
        """Let :meth:`run` return after the pass it is making; may be called from a signal handler."""
        self._stopped.set()

    def _recover(self, store: Store, done: Pass) -> None:
        seen: set[tuple[int, int]] = set()
        while not done.outage and not self._stopped.is_set():
            batch = store.stale(self.batch_size)
            for stale in batch:
                if done.outage:
                    return
                self._act(store, stale, done)
            fresh = {(stale.id, stale.enqueue_count) for stale in batch} - seen
            if self.dry_run or len(batch) < self.batch_size or not fresh:
                return
            seen |= fresh

    def _act(self, store: Store, stale: Stale, done: Pass) -> None:
        """Give one audit up or send it again; what is wrong with it must not stop the others."""
        message: Any = None
        error: Exception | None = None
        try:
            message = copy_of(stale, self.broker)
            policy = self.middleware.policy(message)
            backoff = policy.backoff(stale.enqueue_count + 1)
        except Exception as undecodable:
            error = undecodable
            policy = self.middleware.policy_of(stale.actor_name, {})
            backoff = cubic_backoff(stale.enqueue_count + 1)
        reason = self._hopeless(stale, policy)
        if reason is not None:
            done.dead += self.dry_run or store.expire(stale, reason)
        elif self.dry_run:
            done.recovered += error is None
            done.failed += error is not None
        else:
            marked = store.mark(stale, backoff)
            if marked is not None:
                self._send(store, marked, message, error, done)

    def _send(
        self, store: Store, marked: Marked, message: Any, error: Exception | None, done: Pass
    ) -> None:
        if error is None:
            error = self._push(store, marked, message, done)
        if error is None:
            return
        done.failed += 1
        self.logger.warning(
            "Message %s of actor %r cannot be sent (%s); it is tried again after its backoff.",
            marked.stale.message_id,
            marked.stale.actor_name,
            type(error).__name__,
        )
        store.set_aside(marked, error)

    def _hopeless(self, stale: Stale, policy: Policy) -> str | None:
        crashes = stale.crash_count + (stale.state == RUNNING)
        if policy.max_crashes is not None and crashes >= policy.max_crashes:
            return f"its worker died {crashes} times while it ran (max_crashes)"
        if stale.enqueue_count >= 2 and stale.scheduled_at + self.expiration <= stale.now:
            return f"open for longer than its expiration ({self.expiration})"
        return None

    def _push(
        self, store: Store, marked: Marked, message: dramatiq.Message[Any], done: Pass
    ) -> Exception | None:
        """Send the message and confirm it; an error that is this message's own is returned."""
        wait = max(marked.stale.scheduled_at - marked.stale.now, timedelta(0))
        try:
            pushed = self.middleware.push(message, wait // timedelta(milliseconds=1) or None)
        except OUTAGES as error:
            done.outage = True
            store.unmark(marked, timedelta(seconds=self._pause()))
            if not self._outages:
                self.logger.warning(
                    "The broker takes no messages (%s); the monitor waits.", type(error).__name__
                )
            return None
        except Exception as error:
            return error
        store.confirm(marked, pushed.options.get("redis_message_id"), wait)
        done.recovered += 1
        return None

    def _cleanup(self, store: Store, done: Pass) -> None:
        if self.dry_run:
            done.deleted += store.count_expired(
                retention=self.retention, dead_retention=self.dead_retention
            )
            return
        while not self._stopped.is_set():
            deleted = store.cleanup(
                self.batch_size, retention=self.retention, dead_retention=self.dead_retention
            )
            done.deleted += deleted
            if deleted < self.batch_size:
                return

    def _pause(self) -> float:
        """Seconds to the next pass: the interval, doubled for each pass in a row that met an outage."""
        longest = max(LONGEST_PAUSE, self.interval)
        return min(self.interval * 2.0 ** min(self._outages, 10), longest)


def _duration(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)
