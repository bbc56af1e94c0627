"""One stale audit is given up or sent again, and what is to blame when the broker refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dramatiq
import redis
from dramatiq.errors import BrokerConnectionError
from dramatiq.logging import get_logger

from .backoff import cubic_backoff
from .errors import DatabaseUnreachable
from .messages import copy_of
from .middleware import DurableMiddleware
from .models import RUNNING
from .options import Policy, checked
from .store import Marked, Stale, Store

#: What a broker raises when it takes no message at all; some do so at one that they do not like.
OUTAGES = (BrokerConnectionError, redis.RedisError, OSError)


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


@dataclass
class Attempt:
    """A marked audit whose message is to be pushed, and the error that it met."""

    store: Store
    marked: Marked
    message: Any
    error: Exception | None = None

    @property
    def message_id(self) -> str:
        return self.marked.stale.message_id


class Recovery:
    """Acts on one stale audit after the other, pass after pass.

    A broker that refuses a message with an error of :data:`OUTAGES` may be
    down, or may dislike just this message: it is too large, its queue was
    declared with other arguments.  The next message tells.  Refused too, it is
    an outage, which uses up no backoff.  Taken, the first is tried once more
    and, refused again, set aside until its backoff is over.  So is one that was
    refused in a former pass and is now refused right after another was taken.
    Without a message that was taken nobody can tell: that is an outage, too.
    """

    def __init__(
        self, middleware: DurableMiddleware, expiration: timedelta, *, dry_run: bool
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.middleware = middleware
        self.expiration = expiration
        self.dry_run = dry_run
        self.done = Pass()
        self._pause = timedelta(0)
        self._known = False  # that the broker is down
        self._taken = False  # the last message that was pushed
        self._suspect: Attempt | None = None
        self._refused: set[str] = set()  # message_ids, since the last pass without an outage

    def begin(self, pause: timedelta) -> Pass:
        """Begin a pass and its counts; what an outage refuses is stale again after *pause*."""
        self._known = self.done.outage
        self.done = Pass()
        self._pause = pause
        self._taken = False
        return self.done

    def end(self) -> None:
        """End the pass: no other message follows that could tell an outage from a bad message."""
        suspect, self._suspect = self._suspect, None
        if suspect is not None:
            self._outage(suspect)
        if not self.done.outage:
            self._refused.clear()

    def act(self, store: Store, listed: Stale) -> None:
        """Give one audit up or send it again; what is wrong with it must not stop the others."""
        stale = store.load(listed)
        if stale is None:
            return
        message: Any = None
        error: Exception | None = None
        policy = self.middleware.policy_of(stale.actor_name, {})
        try:
            message = copy_of(stale, self._broker)
            checked(message.options, "the stored message")
            policy = self.middleware.policy(message)
            backoff = policy.wait(stale.enqueue_count + 1)
        except Exception as wrong:
            error = wrong
            backoff = cubic_backoff(stale.enqueue_count + 1)
        reason = self._hopeless(stale, policy)
        if reason is not None:
            self.done.dead += self.dry_run or store.expire(stale, reason)
        elif self.dry_run:
            self.done.recovered += error is None
            self.done.failed += error is not None
        else:
            marked = store.mark(stale, backoff)
            if marked is not None:
                self._send(Attempt(store, marked, message, error))

    @property
    def _broker(self) -> dramatiq.Broker:
        assert self.middleware.broker is not None
        return self.middleware.broker

    def _hopeless(self, stale: Stale, policy: Policy) -> str | None:
        crashes = stale.crash_count + (stale.state == RUNNING)
        if policy.max_crashes is not None and crashes >= policy.max_crashes:
            return f"its worker died {crashes} times while it ran (max_crashes)"
        if stale.enqueue_count >= 2 and stale.now - stale.scheduled_at >= self.expiration:
            return f"open for longer than its expiration ({self.expiration})"
        return None

    def _send(self, attempt: Attempt) -> None:
        if attempt.error is None:
            self._push(attempt)
        else:
            self._set_aside(attempt)

    def _push(self, attempt: Attempt) -> None:
        stale = attempt.marked.stale
        wait = max(stale.scheduled_at - stale.now, timedelta(0))
        delay = wait // timedelta(milliseconds=1) or None
        try:
            pushed = self.middleware.push(attempt.message, delay)
        except OUTAGES as error:
            attempt.error = error
            self._doubt(attempt)
        except Exception as error:
            attempt.error = error
            self._set_aside(attempt)
        else:
            self._taken = True
            self._refused.discard(attempt.message_id)
            attempt.store.confirm(attempt.marked, pushed.options.get("redis_message_id"), wait)
            self.done.recovered += 1
            self._try_suspect_again()

    def _doubt(self, attempt: Attempt) -> None:
        """Judge a message whose refusal looks like an outage."""
        before, self._taken = self._taken, False
        if before and attempt.message_id in self._refused:
            self._refused.discard(attempt.message_id)
            self._set_aside(attempt)
            return
        self._refused.add(attempt.message_id)
        suspect, self._suspect = self._suspect, attempt
        if suspect is not None:
            self._suspect = None
            self._outage(suspect, attempt)

    def _try_suspect_again(self) -> None:
        suspect, self._suspect = self._suspect, None
        # After its push lease it is another monitor's to push.
        if suspect is not None and suspect.marked.stale.now < suspect.marked.due_at:
            self._push(suspect)

    def _outage(self, *refused: Attempt) -> None:
        self.done.outage = True
        for attempt in refused:
            try:
                attempt.store.unmark(attempt.marked, self._pause)
            except DatabaseUnreachable:
                self.logger.debug("Message %s waits for its push lease.", attempt.message_id)
        if not self._known:
            self.logger.warning(
                "The broker takes no messages (%s, the first is %s); the monitor waits.",
                type(refused[0].error).__name__,
                refused[0].message_id,
            )

    def _set_aside(self, attempt: Attempt) -> None:
        assert attempt.error is not None
        self.done.failed += 1
        self.logger.warning(
            "Message %s of actor %r cannot be sent (%s); it is tried again after its backoff.",
            attempt.message_id,
            attempt.marked.stale.actor_name,
            type(attempt.error).__name__,
        )
        attempt.store.set_aside(attempt.marked, attempt.error)
