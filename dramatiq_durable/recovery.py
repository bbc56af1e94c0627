"""One stale audit is given up or sent again, and what is to blame when the broker refuses it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any

import redis
from dramatiq.logging import get_logger

from .errors import AuditLocked, DatabaseUnreachable
from .messages import ENQUEUED_AT
from .middleware import DurableMiddleware
from .outages import NotTried, is_outage
from .passes import Pass
from .plans import plan
from .store import Marked, Stale, Store, instant

logger = get_logger(__name__)

#: Redis judges before it looks at the message, and by the moment: that another was taken says nothing.
FULL: Any = getattr(redis.exceptions, "OutOfMemoryError", ())

#: Messages that a pass sees refused in a row, and seconds that it spends so, before it stops; one while an outage goes on.
REFUSALS, REFUSAL_SECONDS = 20, 5.0

#: Of payloads that are read at once, unless one alone is larger.
BYTES = 2**22

#: Refusals that are remembered from pass to pass.
REMEMBERED = 10_000


@dataclass
class Attempt:
    """A marked audit whose message the broker has refused."""

    store: Store
    marked: Marked
    message: Any
    error: Exception

    @property
    def message_id(self) -> str:
        return self.marked.stale.message_id


class Recovery:
    """Acts on stale audits, pass after pass.

    A broker that refuses a message with an error that :func:`is_outage` may be
    down, or may dislike just this message: it is too large, its queue was
    declared with other arguments.  It is the message that is bad if it was
    refused twice and another was taken in between; it is set aside until its
    backoff is over.  So each message that is taken makes those that were refused
    before it be tried again.  Those that are left at the end of the pass count
    as an outage, which uses up no backoff.
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
        self._suspects: list[Attempt] = []  # refused since the last message that was taken
        self._refusing_since = 0.0  # of the first suspect, by the monotonic clock
        self._taken = 0  # messages, ever
        self._refused: dict[str, int] = {}  # by message_id: how many had been taken then

    def split(
        self, store: Store, listed: Sequence[Stale], most: int
    ) -> tuple[Sequence[Stale], Sequence[Stale]]:
        """Those to act on at once, *most* of them at most, and the rest; one where each is a push of its own, or a probe."""
        if not self.middleware.pipelining.collects or self._known:
            return listed[:1], listed[1:]
        sizes = accumulate(stale.payload_size for stale in listed[: min(most, store.most)])
        count = sum(size <= BYTES for size in sizes) or 1
        return listed[:count], listed[count:]

    def begin(self, pause: timedelta) -> Pass:
        """Begin a pass and its counts; what an outage refuses is stale again after *pause*."""
        self._known = self.done.outage
        self.done = Pass()
        self._pause = pause
        return self.done

    def end(self) -> None:
        """End the pass: no other message follows that could tell an outage from a bad message."""
        suspects, self._suspects = self._suspects, []
        self.done.outage = bool(suspects)
        for suspect in suspects:
            try:
                suspect.store.unmark(suspect.marked, self._pause, suspect.error)
            except DatabaseUnreachable:
                self.logger.debug("Message %s waits for its push lease.", suspect.message_id)
        if suspects and not self._known:
            self.logger.warning(
                "The broker takes no messages (%s, the first is %s); the monitor waits.",
                type(suspects[0].error).__name__,
                suspects[0].message_id,
            )
        if len(self._refused) > REMEMBERED:
            self._refused.clear()

    def act(self, store: Store, listed: Sequence[Stale], *, hopeless: bool = True) -> bool:
        """Give these audits up, unless not *hopeless*, or send them again.

        What is wrong with one must not stop the others.

        Returns:
          False when some are not as they were read any more: another monitor may be at them, too.
        """
        wanted = []
        loaded = store.load_all(listed)
        for stale in loaded:
            planned = plan(self.middleware, store, stale)
            reason = planned.hopeless(self.expiration) if hopeless else None
            if reason is not None:
                self._bury(store, stale, reason)
            elif self.dry_run:
                self.done.note("recovered" if planned.error is None else "failed", [stale])
            else:
                wanted.append(planned)
        plans = {each.stale.id: each for each in wanted}
        good = []
        bad = []
        elected = store.mark_all([(each.stale, each.backoff) for each in wanted])
        for marked in elected:
            planned = plans[marked.stale.id]
            if planned.error is None:
                good.append((marked, planned.message))
            else:
                bad.append((marked, planned.error))
        self._push_all(store, good)
        for marked, error in bad:
            self._set_aside(store, marked, error)
        return len(loaded) == len(listed) and len(elected) == len(wanted)

    def _bury(self, store: Store, stale: Stale, reason: str) -> None:
        if self.dry_run:
            self.done.note("dead", [stale])
        elif _unless_locked(stale, lambda: store.expire(stale, reason)):
            self.done.note("dead", [stale])
            self.logger.warning(
                "Message %s of actor %r is dead: %s.", stale.message_id, stale.actor_name, reason
            )

    def _push_all(self, store: Store, wanted: Sequence[tuple[Marked, Any]]) -> None:
        if len(wanted) == 1:
            self._push(store, *wanted[0])
            return
        for refused in self._push_together(store, wanted):
            if self.done.outage:
                self._suspects.append(refused)
            else:
                self._push_again(refused)

    def _push_together(self, store: Store, wanted: Sequence[tuple[Marked, Any]]) -> list[Attempt]:
        """Push in one round trip; returns those whose refusal looks like an outage."""
        results = self.middleware.pipelining.push_all([_copy(*each) for each in wanted])
        taken: list[tuple[Marked, str | None]] = []
        refused, bad = [], []
        for (marked, message), result in zip(wanted, results, strict=True):
            if not isinstance(result, Exception):
                taken.append((marked, result.options.get("redis_message_id")))
            elif not is_outage(result):
                bad.append((marked, result))
            else:
                refused.append(Attempt(store, marked, message, result))
                if not isinstance(result, NotTried):
                    # What was taken before it in this round trip says nothing of it.
                    self._refused.setdefault(marked.stale.message_id, self._taken + len(taken))
        if taken:
            self._note_taken([marked for marked, _ in taken])
            store.confirm_all(taken)
            self.done.note("recovered", [marked.stale for marked, _ in taken])
            self._try_suspects_again()
        for marked, error in bad:
            self._set_aside(store, marked, error)
        return refused

    def _push(self, store: Store, marked: Marked, message: Any) -> None:
        [result] = self.middleware.pipelining.push_all([_copy(marked, message)])
        if not isinstance(result, Exception):
            self._note_taken([marked])
            store.confirm(marked, result.options.get("redis_message_id"))
            self.done.note("recovered", [marked.stale])
            self._try_suspects_again()
        elif is_outage(result):
            self._doubt(Attempt(store, marked, message, result))
        else:
            self._set_aside(store, marked, result)

    def _note_taken(self, marked: Sequence[Marked]) -> None:
        self._taken += len(marked)
        self._known = False
        for each in marked:
            self._refused.pop(each.stale.message_id, None)

    def _doubt(self, attempt: Attempt) -> None:
        """Judge a message whose refusal looks like an outage."""
        seen = self._refused.setdefault(attempt.message_id, self._taken)
        if seen < self._taken and not isinstance(attempt.error, FULL):
            del self._refused[attempt.message_id]
            self._set_aside(attempt.store, attempt.marked, attempt.error)
            return
        now = time.monotonic()
        if not self._suspects:
            self._refusing_since = now
        self._suspects.append(attempt)
        self.done.outage = (
            self._known
            or len(self._suspects) >= REFUSALS
            or now - self._refusing_since >= REFUSAL_SECONDS
        )

    def _try_suspects_again(self) -> None:
        suspects, self._suspects = self._suspects, []
        for suspect in suspects:
            self._push_again(suspect)

    def _push_again(self, attempt: Attempt) -> None:
        # After its push lease it is another monitor's to push.
        if attempt.marked.stale.now < attempt.marked.due_at:
            self._push(attempt.store, attempt.marked, attempt.message)

    def _set_aside(self, store: Store, marked: Marked, error: Exception) -> None:
        self.done.note("failed", [marked.stale])
        self.logger.warning(
            "Message %s of actor %r cannot be sent (%s); it is tried again after its backoff.",
            marked.stale.message_id,
            marked.stale.actor_name,
            type(error).__name__,
        )
        _unless_locked(marked.stale, lambda: store.set_aside(marked, error))


def _copy(marked: Marked, message: Any) -> tuple[Any, int | None]:
    """The message as it goes out, and its delay in milliseconds."""
    wait = max(marked.starts_at - marked.stale.now, timedelta(0))
    message.options[ENQUEUED_AT] = instant(marked.starts_at)
    return message, wait // timedelta(milliseconds=1) or None


def _unless_locked(stale: Stale, write: Callable[[], bool]) -> bool:
    """What somebody holds locked waits for a later pass, and holds up no other."""
    try:
        return write()
    except AuditLocked:
        logger.debug("Message %s is locked; passed by.", stale.message_id)
        return False


def turned(listed: Sequence[Stale]) -> Sequence[Stale]:
    """*listed* from another place, where a monitor that is at its beginning will not be next."""
    at = random.randrange(len(listed) + 1)
    return [*listed[at:], *listed[:at]]
