"""One run of a durable job in this process: from its claim to its settlement."""

from __future__ import annotations

import enum
import math
import os
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import dramatiq
import peewee
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger
from dramatiq.middleware import Shutdown, TimeLimit

from .claimer import Claimer
from .counters import count_lost_lease
from .errors import Duplicate, LeaseLost, RequeueImmediately, reason
from .fence import Fence
from .keeper import Keeper, Lease
from .leftovers import leftovers_rolled_back
from .messages import AnyMessage, epoch_of
from .models import COMPLETED
from .options import Policy
from .owed import Owed
from .store import Copy, Held, Store

logger = get_logger(__name__)

# The system's own random numbers make each thread wait for the others' bytecode.
_numbers = random.Random()
os.register_at_fork(after_in_child=_numbers.seed)

_current: ContextVar[Run | None] = ContextVar("durable_run", default=None)


class Outcome(enum.Enum):
    """What the hooks have said of a run so far; the last word counts."""

    NONE = "nothing yet"
    RETURNED = "the body returned"
    RAISED = "the body, or a hook, raised an exception"
    REQUEUED = "it is to be run again"
    SKIPPED = "another middleware skipped it"


class Run:
    """A durable message in a worker, its claim, and what has become of it."""

    def __init__(
        self,
        broker: dramatiq.Broker,
        message: MessageProxy,
        store: Store,
        policy: Policy,
        keeper: Keeper,
        claimer: Claimer,
    ) -> None:
        self.broker = broker
        self.message = message
        self.store = store
        self.policy = policy
        self.keeper = keeper
        self.claimer = claimer
        self.epoch = epoch_of(message) or 0
        self.claim = Held(message.message_id, self.epoch + 1, f"{_numbers.getrandbits(128):032x}")
        self.fence = Fence()
        self.outcome = Outcome.NONE
        self.in_body = False
        self.body_ended = False
        self.claiming = False
        self.held = False
        self.lost = False
        self.completed = False  # by transaction()
        self.let_go = False  # a release is written or owed, and Retries' copy is out
        self.follow_up_failed = False
        self.compensated = False  # the message to on_retry_exhausted is out
        self.settled = False
        self.restore: Callable[[], bool] = lambda: False  # the audit, if the database has lost it

    def find_out(self) -> bool:
        """Whether the job is ours, when the claim was interrupted before its answer came."""
        if self.claiming:
            self.held = self.store.holds(self.claim)
            self.claiming = False
        return self.held

    def lease(self, interval: float) -> Lease:
        """What the keeper renews every *interval* seconds."""
        limit = self._time_limit()
        ends = None if limit is None else time.monotonic() + limit / 1000
        return Lease(self.store, self.claim, interval, self.lose, ends)

    def is_completed(self) -> bool:
        """Whether the database says that this run has completed the job."""
        try:
            audit = self.store.find(self.claim.message_id)
        except Exception as error:
            logger.warning("Message %s: %s.", self.claim.message_id, reason(error))
            return False
        return audit is not None and (audit.state, audit.epoch, audit.claim_id) == (
            COMPLETED,
            self.claim.token,
            self.claim.claim_id,
        )

    def complete_in(self, transaction: peewee.Database) -> bool:
        """Complete the job as part of *transaction*; False when it is not ours any more."""
        done = self.store.complete_in
        return done(transaction, self.claim) or (self.restore() and done(transaction, self.claim))

    @property
    def compensates(self) -> bool:
        """Its actor names an actor that makes up for it when Dramatiq's retries are exhausted."""
        return bool(self._option("on_retry_exhausted"))

    def is_compensated_by(self, message: AnyMessage) -> bool:
        """Whether *message*, which follows from this job, makes up for its failure."""
        return self.message.failed and message.actor_name == self._option("on_retry_exhausted")

    def _time_limit(self) -> float | None:
        """Milliseconds that Dramatiq lets the body run; None for ever."""
        limits = [m.time_limit for m in self.broker.middleware if isinstance(m, TimeLimit)]
        limit = self._option("time_limit") or (limits[0] if limits else None)
        return None if limit is None or limit == float("inf") else limit

    def lose(self) -> None:
        """The audit is somebody else's, or cancelled: interrupt the body, and write nothing more."""
        # A renewal that waited for transaction() is refused because that has completed the audit,
        # one that was under way while the job ended because of what was written then.
        if self.completed or self.settled or self.let_go:
            return
        logger.warning("The lease of message %s is lost.", self.message.message_id)
        self.note_lost()
        self.fence.strike()

    def note_lost(self) -> None:
        """Whoever learns of it first, keeper or actor."""
        if not self.lost:
            self.lost = True
            count_lost_lease(self.broker)

    def execute(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the body; what it raises at its edge decides what becomes of the job."""
        self.in_body = True
        try:
            with (
                leftovers_rolled_back(self.store.database, self.claim.message_id),
                self.fence.body(),
            ):
                if self.lost:
                    raise LeaseLost  # before there was a body to interrupt
                result = fn(*args, **kwargs)
        except BaseException as error:
            # A body, or Dramatiq's event loop, may turn an interrupt into an error of its own.
            if self.lost or isinstance(error, LeaseLost):
                raise self._skip(Outcome.NONE, "its lease is lost") from error
            if isinstance(error, RequeueImmediately):
                self._skip(Outcome.REQUEUED, "")
                raise
            if self.policy.requeue_on_shutdown and stems_from(error, Shutdown):
                self._skip(Outcome.REQUEUED, "")
                raise RequeueImmediately("the worker is shutting down") from error
            raise
        finally:
            self.in_body, self.body_ended = False, True
        if self.lost:
            raise self._skip(Outcome.NONE, "its lease is lost")
        return result

    def ended(self, exception: BaseException | None) -> None:
        """Dramatiq says so once, or twice if an interrupt strikes in its after-hooks; the last word counts."""
        self.outcome = Outcome.RETURNED if exception is None else Outcome.RAISED

    def skipped(self) -> None:
        """Skipped after its claim, by ourselves or by another middleware."""
        if self.held and self.outcome is Outcome.NONE and not self.lost:
            self.outcome = Outcome.SKIPPED

    def settle(self) -> None:
        """Write what has become of the job, after all hooks of all middleware."""
        self.settled = True
        self.fence.close()
        unfinished = self.held or self.claiming
        # What was lost after the body had returned may be ours to complete all the same.
        lost = self.lost and self.outcome is not Outcome.RETURNED
        if not unfinished or lost or self.completed or self.let_go:
            self.keeper.drop(self.claim)
        elif self.outcome is Outcome.RETURNED and not (
            self.message.failed or self.follow_up_failed
        ):
            self.keeper.complete(self.store, self.claim)
        else:
            self.keeper.drop(self.claim)
            self._give_up()

    def let_go_to(self, copy: dramatiq.Message[Any], delay: timedelta) -> None:
        """Release the audit to the *copy* that Retries is sending, which is delivered after *delay*."""
        if self.let_go:
            return
        self.keeper.drop(self.claim)
        error = self.message._exception or "retried"
        broker_id = copy.options.get("redis_message_id")
        self._write(
            lambda store: store.release(
                self.claim, error, retry_delay=delay, broker_message_id=broker_id
            )
        )
        self.let_go = True

    def _write(self, write: Callable[[Store], bool], lasts: float | None = None) -> None:
        """Write now, or let the keeper try for as long as the lease may last, or for *lasts* seconds."""
        try:
            written = write(self.store) or (self.held and self.restore() and write(self.store))
        except BaseException as error:
            logger.warning(
                "Message %s: %s. It will be tried again.", self.claim.message_id, reason(error)
            )
            until = time.monotonic() + (self.policy.lease / 1000 if lasts is None else lasts)
            self.keeper.owe(Owed(self.store, self.claim, write, until))
            if not isinstance(error, Exception):
                raise
        else:
            # A claim that was interrupted may not have been made.
            if self.held and not written:
                logger.warning(
                    "Message %s has ended, but its audit was no longer ours; or the answer to a "
                    "first try was lost, and that has been written.",
                    self.claim.message_id,
                )

    def _give_up(self) -> None:
        error = self.message._exception or (
            "the job, or a follow-up of it, was not carried out to its end"
        )
        if self.outcome is Outcome.REQUEUED:
            self._write(lambda store: store.requeue(self.claim))
        elif self._is_final():
            self._write(lambda store: store.dead(self.claim, error), math.inf)
        elif self.outcome is Outcome.SKIPPED:
            self._write(lambda store: store.abort(self.claim), math.inf)
        else:
            self._write(lambda store: store.release(self.claim, error))

    def _is_final(self) -> bool:
        if self.outcome is not Outcome.RAISED:
            # Failed by another middleware, before the body or after it.
            return self.message.failed and self.outcome is not Outcome.NONE
        throws = self._option("throws")
        return self.compensated or bool(throws and isinstance(self.message._exception, throws))

    def _option(self, name: str) -> Any:
        actor = self.broker.actors.get(self.message.actor_name)
        return self.message.options.get(name) or (actor and actor.options.get(name))

    def _skip(self, outcome: Outcome, why: str) -> Duplicate:
        self.outcome = outcome
        # Before the skip is raised: Results may see it before this middleware does.
        self.message.options["store_results"] = False
        return Duplicate(f"message {self.claim.message_id}: {why}")

    def skip(self, why: str, outcome: Outcome = Outcome.NONE) -> Duplicate:
        """The error that makes Dramatiq skip this copy, and nobody store a result for it."""
        logger.info("A copy of message %s is skipped: %s.", self.message.message_id, why)
        return self._skip(outcome, why)


def skip_unclaimed(store: Store, message: MessageProxy, epoch: int) -> None:
    """Another middleware skipped a copy before it was claimed."""
    copy = Copy(message.message_id, epoch)
    if message.failed:
        ended = store.dead(copy, message._exception or "skipped as failed by another middleware")
    else:
        ended = store.abort(copy)
    if not ended:
        # The job is another copy's, or finished, and so are its result and its dead letter.
        message.options["store_results"] = False
        message.failed = False


def set_current(run: Run | None) -> None:
    _current.set(run)


def current_run() -> Run | None:
    """The run whose hooks or body execute here."""
    return _current.get()


def stems_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None
