"""One run of a durable job in this process: from its claim to its settlement."""

from __future__ import annotations

import enum
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger
from dramatiq.middleware import Shutdown, TimeLimit

from .errors import Duplicate, LeaseLost, RequeueImmediately
from .fence import Fence
from .keeper import Keeper, Lease, Owed
from .leftovers import leftovers_rolled_back
from .messages import CLAIM_ID, EPOCH, SCHEDULED_AT, epoch_of, new_audit
from .models import NAME_LENGTH
from .options import Policy
from .store import Copy, Held, Store

logger = get_logger(__name__)

_current: ContextVar[Run | None] = ContextVar("durable_run", default=None)


class Outcome(enum.Enum):
    """What the hooks have said of a run so far; the last word counts."""

    NONE = "nothing yet"
    RETURNED = "the body returned"
    RAISED = "the body, or a hook, raised an exception"
    REQUEUED = "the body asked to be run again"
    ABORTED = "another middleware skipped it, on purpose"
    FAILED = "another middleware skipped it, as failed"


class Run:
    """A durable message in a worker, its claim, and what has become of it."""

    def __init__(
        self,
        broker: dramatiq.Broker,
        message: MessageProxy,
        store: Store,
        policy: Policy,
        keeper: Keeper,
    ) -> None:
        self.broker = broker
        self.message = message
        self.store = store
        self.policy = policy
        self.keeper = keeper
        self.epoch = epoch_of(message) or 0
        self.claim = Held(message.message_id, self.epoch + 1, str(uuid.uuid4()))
        self.fence = Fence()
        self.outcome = Outcome.NONE
        self.error: BaseException | None = None
        self.in_body = False
        self.claiming = False
        self.held = False
        self.lost = False
        self.completed = False  # by transaction()
        self.let_go = False  # a release is written or owed, and Retries' copy is out
        self.follow_up_failed = False
        self.settled = False

    def begin(self, retention: int) -> None:
        """Claim the job, and have its lease renewed from now on.

        Raises:
          Duplicate: It is not this copy's to run.
          DatabaseUnreachable: Nobody knows; the claim may be repeated.
        """
        if not self._take():
            if self.store.find(self.claim.message_id) is not None:
                raise self.refuse("its audit is finished, or another copy's to claim")
            self._adopt(retention)
        if self.policy.heartbeat_interval is not None:
            self.keeper.hold(self._lease(self.policy.heartbeat_interval / 1000))

    def _take(self) -> bool:
        self.claiming = True
        claimed = self.store.claim(
            self.claim.message_id,
            self.epoch,
            self.claim.claim_id,
            parent=self.message.options.get(CLAIM_ID),
            worker=_worker_name(),
            lease=timedelta(milliseconds=self.policy.lease),
        )
        self.held = claimed is not None
        self.claiming = False
        return self.held

    def _adopt(self, retention: int) -> None:
        """Write the audit that the database has lost, or never had, and claim it.

        An old copy's audit may have been completed and cleaned up, so that is skipped.
        """
        options = self.message.options
        age = self.store.sender_clock() - options.get(SCHEDULED_AT, self.message.message_timestamp)
        if EPOCH in options and age >= retention / 2:
            raise self.refuse("it has no audit, and is too old to be given a new one")
        self.store.enqueue(new_audit(self.message, self.policy, timedelta(0)), epoch=self.epoch)
        logger.warning("Message %s had no audit; it has one now.", self.message.message_id)
        if not self._take():
            raise self.refuse("another copy was adopted first")

    def find_out(self) -> bool:
        """Whether the job is ours, when the claim was interrupted before its answer came."""
        if self.claiming:
            self.held = self.store.holds(self.claim)
            self.claiming = False
        return self.held

    def _lease(self, interval: float) -> Lease:
        limit = self._time_limit()
        ends = None if limit is None else time.monotonic() + limit / 1000
        return Lease(self.store, self.claim, interval, self.lose, ends)

    @property
    def compensates(self) -> bool:
        """Its actor names an actor that makes up for it when Dramatiq's retries are exhausted."""
        return bool(self._option("on_retry_exhausted"))

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
        self.lost = True
        logger.warning("The lease of message %s is lost.", self.message.message_id)
        self.fence.strike()

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
            if self.policy.requeue_on_shutdown and _stems_from(error, Shutdown):
                self._skip(Outcome.REQUEUED, "")
                raise RequeueImmediately("the worker is shutting down") from error
            raise
        finally:
            self.in_body = False
        if self.lost:
            raise self._skip(Outcome.NONE, "its lease is lost")
        return result

    def ended(self, exception: BaseException | None) -> None:
        """Dramatiq says so once, or twice if an interrupt strikes in its after-hooks; the last word counts."""
        if exception is not None:
            self.outcome = Outcome.RAISED
        elif self.message.failed:
            self.outcome = Outcome.FAILED  # before its body, by another middleware
        else:
            self.outcome = Outcome.RETURNED
        self.error = exception

    def skipped(self) -> None:
        """Skipped after its claim, by ourselves or by another middleware."""
        if self.held and self.outcome is Outcome.NONE and not self.lost:
            self.outcome = Outcome.FAILED if self.message.failed else Outcome.ABORTED

    def settle(self) -> None:
        """Write what has become of the job, after all hooks of all middleware."""
        self.settled = True
        self.fence.close()
        unfinished = self.held or self.claiming
        if not unfinished or self.lost or self.completed or self.let_go:
            self.keeper.drop(self.claim)
        elif self.outcome is Outcome.RETURNED and not self.follow_up_failed:
            self.keeper.complete(self.store, self.claim)
        else:
            self.keeper.drop(self.claim)
            self._give_up()

    def let_go_to(self, copy: dramatiq.Message[Any], delay: timedelta) -> None:
        """Release the audit to the *copy* that Retries is sending, which is delivered after *delay*."""
        if self.let_go:
            return
        self.let_go = True
        self.keeper.drop(self.claim)
        error, broker_id = self.error or "retried", copy.options.get("redis_message_id")
        self._write(
            lambda store: store.release(
                self.claim, error, retry_delay=delay, broker_message_id=broker_id
            )
        )

    def _write(self, write: Callable[[Store], bool]) -> None:
        """Write now, or let the keeper try for as long as the lease may last."""
        try:
            written = write(self.store)
        except Exception as error:
            logger.warning("Message %s: %s. It will be tried again.", self.claim.message_id, error)
            until = time.monotonic() + self.policy.lease / 1000
            self.keeper.owe(Owed(self.store, self.claim, write, until))
        else:
            if not written:
                logger.warning(
                    "Message %s has ended, but its audit was no longer ours.", self.claim.message_id
                )

    def _give_up(self) -> None:
        error = self.error or "the job, or a follow-up of it, was not carried out to its end"
        if self.outcome is Outcome.REQUEUED:
            self._write(lambda store: store.requeue(self.claim))
        elif self.outcome is Outcome.ABORTED:
            self._write(lambda store: store.abort(self.claim))
        elif self.outcome is Outcome.FAILED or self._is_final():
            self._write(lambda store: store.dead(self.claim, error))
        else:
            self._write(lambda store: store.release(self.claim, error))

    def _is_final(self) -> bool:
        if self.outcome is not Outcome.RAISED:
            return False
        throws = self._option("throws")
        if throws and isinstance(self.error, throws):
            return True
        return self.message.failed and self.compensates and not self.follow_up_failed

    def _option(self, name: str) -> Any:
        actor = self.broker.actors.get(self.message.actor_name)
        return self.message.options.get(name) or (actor and actor.options.get(name))

    def _skip(self, outcome: Outcome, reason: str) -> Duplicate:
        self.outcome = outcome
        # Before the skip is raised: Results may see it before this middleware does.
        self.message.options["store_results"] = False
        return Duplicate(f"message {self.claim.message_id}: {reason}")

    def refuse(self, reason: str) -> Duplicate:
        """The error that makes Dramatiq skip this copy, and nobody store a result for it."""
        logger.info("A copy of message %s is skipped: %s.", self.message.message_id, reason)
        return self._skip(Outcome.NONE, reason)


def skip_unclaimed(store: Store, message: MessageProxy, epoch: int) -> None:
    """Another middleware skipped a copy before it was claimed."""
    copy = Copy(message.message_id, epoch)
    if message.failed:
        store.dead(copy, message._exception or "skipped as failed by another middleware")
    else:
        store.abort(copy)


def set_current(run: Run | None) -> None:
    _current.set(run)


def current_run() -> Run | None:
    """The run whose hooks or body execute here."""
    return _current.get()


def _stems_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None


def _worker_name() -> str:
    name = f"{socket.gethostname()}:{os.getpid()}:{threading.current_thread().name}"
    return name[:NAME_LENGTH]
