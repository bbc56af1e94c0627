"""The contract of ``send()``: the broker instance's ``enqueue``, with an audit around it.

Dramatiq has no hook for a push that was refused, postponed or never begun, so
``enqueue`` of the broker instance is wrapped.  The audit itself is written in
``before_enqueue``, where the message is as it goes out.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

import dramatiq
import peewee
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError
from dramatiq.worker import _ConsumerThread

from .errors import DatabaseUnreachable, DurableError, OptionError, PayloadTooLarge
from .lanes import in_memory
from .messages import (
    CLAIM_ID,
    EPOCH,
    MESSAGE_ID,
    SCHEDULED_AT,
    AnyMessage,
    epoch_of,
    new_audit,
    normalised,
    stamped,
)
from .options import LONGEST, Policy, check_together, checked
from .store import NewAudit, Store
from .working import Run, current_run

logger = get_logger(__name__)

Message = dramatiq.Message[Any]

#: The message that was enqueued again last in this thread.
_enqueued_again: ContextVar[str | None] = ContextVar("durable_enqueued_again", default=None)

_underway: ContextVar[FirstSend | Retry | None] = ContextVar("durable_send", default=None)


class Hooks(Protocol):
    """What the wrapper asks of the middleware."""

    def policy(self, message: AnyMessage) -> Policy: ...
    def store_for(self, policy: Policy) -> Store: ...
    def audit_failed(self, broker: dramatiq.Broker, message: Message, error: Exception) -> None: ...
    def audit_columns(self, broker: dramatiq.Broker, message: Message) -> Mapping[str, Any]: ...
    def enqueue_failed(
        self, broker: dramatiq.Broker, message: Message, error: Exception
    ) -> None: ...


class Refused(MiddlewareError):
    """Carries an error of the sender's through the broker, which would log any other kind and go on."""


class FirstSend:
    """A message on its way to its first push."""

    def __init__(
        self, hooks: Hooks, broker: dramatiq.Broker, message: Message, delay: int | None
    ) -> None:
        options = checked(message.options, f"message for {message.actor_name!r}")
        self.hooks = hooks
        self.broker = broker
        self.policy = hooks.policy(stamped(message, **options))
        check_together(self.policy, f"message for {message.actor_name!r}")
        self.store = hooks.store_for(self.policy)
        if (delay or 0) > LONGEST // timedelta(milliseconds=1):
            raise OptionError(f"a delay of {delay} ms is longer than {LONGEST.days} days")
        self.delay = timedelta(milliseconds=delay or 0)
        if self.policy.requeue_on_shutdown:
            options["notify_shutdown"] = True
        scheduled_at = self.store.sender_clock() + (delay or 0)
        stamps = {EPOCH: 0, MESSAGE_ID: message.message_id, SCHEDULED_AT: scheduled_at}
        self.message = stamped(message, **options, **stamps)
        self.error: Exception | None = None
        self.written = False
        self.inserted = False  # False: the message has been sent before
        self.new: NewAudit | None = None  # None: audit_failed() let the message go without one

    @property
    def in_transaction(self) -> bool:
        """Whether the audit will be part of a transaction of the caller's."""
        database = self.store.database
        return not in_memory(database) and database.in_transaction() and not _is_manual(database)

    def write(self, message: Message, *, in_transaction: bool = False) -> None:
        """Write the audit of *message*, once, though RabbitMQ's broker asks again for each of its attempts.

        Raises:
          Refused: Nothing was written; :attr:`error` says why.
        """
        if self.written:
            return
        try:
            new = self._audit_of(message)
            transaction = self.store.database if in_transaction else None
            try:
                self.inserted = self.store.enqueue(new, transaction=transaction)
                self.new = new
            except Exception as error:
                self.hooks.audit_failed(self.broker, message, error)
        except Exception as error:
            self.error = error
            raise Refused from error
        self.written = True

    def before_push(self, message: Message) -> None:
        self.write(message)

    def _audit_of(self, message: Message) -> NewAudit:
        new = new_audit(message, self.policy, self.delay)
        columns = self.hooks.audit_columns(self.broker, message)
        new = dataclasses.replace(new, columns=columns)
        size, limit = len(new.payload), self.policy.max_payload_size
        if limit is not None and size > limit:
            raise PayloadTooLarge(message.actor_name, size, limit)
        return new


class Retry:
    """The copy that Dramatiq's Retries sends of the job that has just failed here."""

    def __init__(self, run: Run, message: AnyMessage, delay: int | None) -> None:
        self.run = run
        self.delay = timedelta(milliseconds=delay or 0)
        self.epoch = run.claim.token + 1
        claim = {MESSAGE_ID: message.message_id, CLAIM_ID: run.claim.claim_id}
        self.message = stamped(message, **{EPOCH: self.epoch}, **claim)

    def before_push(self, message: Message) -> None:
        self.run.let_go_to(message, self.delay)


def before_push(message: Message) -> None:
    """Called in ``before_enqueue``: write what has to be in the database before the push."""
    underway = _underway.get()
    if underway is not None and underway.message.message_id == message.message_id:
        underway.before_push(message)


class Enqueue:
    """Stands in for ``broker.enqueue``; :attr:`push` is the broker's own."""

    def __init__(self, hooks: Hooks, broker: dramatiq.Broker) -> None:
        self.hooks = hooks
        self.broker = broker
        self.push = broker.enqueue

    def __call__(self, message: AnyMessage, *, delay: int | None = None) -> Message:
        run = current_run()
        if run is None or run.in_body:
            return self._enqueue(message, delay)
        if message.message_id == run.claim.message_id:
            return self._retry(run, message, delay)
        try:
            return self._enqueue(message, delay)
        except BaseException:
            # Dramatiq swallows what its Pipelines and Callbacks raise.
            run.follow_up_failed = True
            raise

    def _enqueue(self, message: AnyMessage, delay: int | None) -> Message:
        run = current_run()
        if run is not None and run.in_body and run.claim.message_id == message.message_id:
            raise DurableError(
                f"message {message.message_id} is running, so it cannot be enqueued again; "
                "raise RequeueImmediately, or send a new message"
            )
        if epoch_of(message) is not None:
            return self._again(message, delay)
        # What a worker moves from a delay queue was sent before its actor was durable; it adopts it.
        moved = isinstance(threading.current_thread(), _ConsumerThread)
        if moved or not self.hooks.policy(message).durable:
            return self.push(message, delay=delay)  # type: ignore[arg-type]
        first = FirstSend(self.hooks, self.broker, message, delay)  # type: ignore[arg-type]
        try:
            if first.in_transaction:
                return self._after_commit(first, delay)
            return self._first(first, delay)
        except Refused:
            assert first.error is not None
            raise first.error from first.error.__cause__

    def _first(self, first: FirstSend, delay: int | None) -> Message:
        underway = _underway.set(first)
        try:
            return self.push(first.message, delay=delay)
        except MiddlewareError:
            # Another middleware refuses the message; ours has seen it, or not.
            if first.inserted:
                _best_effort(first.store.withdraw, first.message.message_id)
            raise
        except Exception as error:
            first.write(first.message)
            if first.new is None:
                raise
            if first.inserted:
                _best_effort(first.store.push_refused, first.new)
            self.hooks.enqueue_failed(self.broker, first.message, error)
            return first.message
        finally:
            _underway.reset(underway)

    def _after_commit(self, first: FirstSend, delay: int | None) -> Message:
        first.write(first.message, in_transaction=True)
        first.store.database.after_commit(lambda: self._push_committed(first, delay))
        return first.message

    def _push_committed(self, first: FirstSend, delay: int | None) -> None:
        """Push what a transaction committed; an error in here would break the caller's other callbacks."""
        new = first.new
        try:
            # Peewee calls back for a savepoint that was rolled back, too.
            if new is None or first.store.begin_push(new):
                self.push(first.message, delay=delay)
                new is None or first.store.pushed(new)
        except DatabaseUnreachable as error:
            logger.warning("Message %s is left to the monitor: %s", first.message.message_id, error)
        except Exception as error:
            if new is not None:
                _best_effort(lambda: first.store.push_refused(new, in_transaction=True))
            _best_effort(self.hooks.enqueue_failed, self.broker, first.message, error)

    def _again(self, message: AnyMessage, delay: int | None) -> Message:
        """A message that has its audit: moved from its delay queue, or enqueued again by its sender."""
        pushed = self.push(message, delay=delay)  # type: ignore[arg-type]
        _enqueued_again.set(message.message_id)
        broker_id, epoch = pushed.options.get("redis_message_id"), epoch_of(message)
        if broker_id is not None and epoch is not None:
            store = self.hooks.store_for(self.hooks.policy(message))
            _best_effort(store.follow, message.message_id, epoch, broker_id)
        return pushed

    def _retry(self, run: Run, message: AnyMessage, delay: int | None) -> Message:
        """Never raises: Retries would lose the message, and Dramatiq would not say so."""
        if run.completed:
            logger.warning("Message %s is complete; its retry is not sent.", message.message_id)
            return normalised(message)
        if not _best_effort(run.find_out):
            return self.push(message, delay=delay)  # type: ignore[arg-type]
        retry = Retry(run, message, delay)
        underway = _underway.set(retry)
        try:
            return self.push(retry.message, delay=delay)
        except Exception as error:
            retry.before_push(retry.message)
            _best_effort(run.store.retry_refused, message.message_id, retry.epoch, retry.delay)
            _best_effort(self.hooks.enqueue_failed, self.broker, retry.message, error)
            return retry.message
        finally:
            _underway.reset(underway)


def was_enqueued_again(message: AnyMessage) -> bool:
    """Another middleware has put *message*, which is being processed here, back into its queue."""
    return _enqueued_again.get() == message.message_id


def forget_enqueued_again() -> None:
    _enqueued_again.set(None)


def _best_effort(write: Any, *args: Any) -> Any:
    """Where the audit is due later anyway, an error must not make the sender believe in a failure."""
    try:
        return write(*args)
    except Exception as error:
        logger.warning("Left to the monitor (%s): %s", type(error).__name__, error)
        return None


def _is_manual(database: Any) -> bool:
    return isinstance(database.top_transaction(), peewee._manual)
