"""Messages on their way to the broker, and what has to be in the database before each push."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

import dramatiq
from dramatiq.middleware import MiddlewareError

from .counters import count_unaudited
from .errors import OptionError, PayloadTooLarge
from .messages import (
    CLAIM_ID,
    EPOCH,
    MESSAGE_ID,
    SCHEDULED_AT,
    UNIQUE_KEY,
    AnyMessage,
    new_audit,
    stamped,
)
from .options import LONGEST, Policy, check_together, check_unique_key, checked
from .store import NewAudit, Store
from .transactions import Transaction, transaction_of
from .working import Run

Message = dramatiq.Message[Any]

_underway: ContextVar[Underway | None] = ContextVar("durable_send", default=None)


class Underway(Protocol):
    """A message that the wrapper pushes."""

    message: Message

    def before_push(self, message: Message) -> None:
        """Called in ``before_enqueue`` with the *message* as it goes out."""


class Hooks(Protocol):
    """What the wrapper asks of the middleware."""

    def policy(self, message: AnyMessage) -> Policy: ...
    def policy_of(self, actor_name: str, options: Mapping[str, Any]) -> Policy: ...
    def store_for(self, policy: Policy) -> Store: ...
    def audit_failed(self, broker: dramatiq.Broker, message: Message, error: Exception) -> None: ...
    def audit_columns(self, broker: dramatiq.Broker, message: Message) -> Mapping[str, Any]: ...
    def enqueue_failed(
        self, broker: dramatiq.Broker, message: Message, error: Exception
    ) -> None: ...


class Refused(MiddlewareError):
    """Carries an error of the sender's through the broker, which would log any other kind and go on."""


class KeyTaken(MiddlewareError):
    """Leaves the broker with a message that is not sent: the audit of *message_id*, which is open, has its key."""

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id


class FirstSend:
    """A message on its way to its first push."""

    def __init__(
        self, hooks: Hooks, broker: dramatiq.Broker, message: Message, delay: int | None
    ) -> None:
        whose = f"message for {message.actor_name!r}"
        options = checked(message.options, whose)
        check_unique_key(message.options.get(UNIQUE_KEY), whose)
        self.hooks = hooks
        self.broker = broker
        self.policy = hooks.policy_of(message.actor_name, {**message.options, **options})
        check_together(self.policy, whose)
        self.store = hooks.store_for(self.policy)
        now = self.store.sender_clock()
        wait = _wait(message, delay, now)
        if wait > LONGEST // timedelta(milliseconds=1):
            raise OptionError(f"a delay of {wait} ms is longer than {LONGEST.days} days")
        self.delay = timedelta(milliseconds=wait)
        if self.policy.requeue_on_shutdown:
            options["notify_shutdown"] = True
        stamps = {EPOCH: 0, MESSAGE_ID: message.message_id, SCHEDULED_AT: now + wait}
        self.message = stamped(message, **options, **stamps)
        self.error: Exception | None = None
        self.written = False
        self.inserted = False  # False: the message has been sent before
        self.new: NewAudit | None = None  # None: audit_failed() let the message go without one

    def transaction(self) -> Transaction | None:
        """The transaction of the caller's that the audit will be part of.

        Raises:
          OptionError: It can't be part of the one that the application lends.
        """
        return transaction_of(self.hooks, self.store)

    def write(self, message: Message, transaction: Transaction | None = None) -> None:
        """Write the audit of *message*, once, though RabbitMQ's broker asks again for each of its attempts.

        Raises:
          Refused: Nothing was written; :attr:`error` says why.
          KeyTaken: The same, for another message is open that has its key.
        """
        if self.written:
            return
        holder: str | None = message.message_id
        try:
            new = self.audit_of(message)
            try:
                holder = self._insert(new, transaction)
                self.new = new
            except Exception as error:
                self.hooks.audit_failed(self.broker, message, error)
                count_unaudited(self.broker)
        except Exception as error:
            self.error = error
            raise Refused from error
        if holder is not None and holder != message.message_id:
            raise KeyTaken(holder)
        self.inserted = holder is None
        self.written = True

    def _insert(self, new: NewAudit, transaction: Transaction | None) -> str | None:
        if transaction is None:
            return self.store.enqueue_unless_open(new)
        with transaction.part(is_one_statement=new.unique_key is None):
            return self.store.enqueue_unless_open(new, transaction=transaction.database)

    def before_push(self, message: Message) -> None:
        self.write(message)

    def audit_of(self, message: Message) -> NewAudit:
        """What the audit of *message* says.

        Raises:
          PayloadTooLarge: It is larger than its ``max_payload_size``.
        """
        new = new_audit(message, self.policy, self.delay)
        columns = self.hooks.audit_columns(self.broker, message)
        if columns:
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


class AsItIs:
    """A message that needs no audit, or that a worker gives one."""

    def __init__(self, message: AnyMessage) -> None:
        self.message: Message = message  # type: ignore[assignment]

    def before_push(self, message: Message) -> None:
        pass


def push(broker_push: Any, what: Underway, delay: int | None) -> Message:
    """Have the broker enqueue it, and :func:`before_push` know what it is."""
    before = _underway.set(what)
    try:
        pushed: Message = broker_push(what.message, delay=delay)
        return pushed
    finally:
        _underway.reset(before)


def underway() -> Underway | None:
    """What the wrapper is pushing now, innermost: hooks may send further messages."""
    return _underway.get()


def before_push(message: Message) -> bool:
    """Called in ``before_enqueue``: write what has to be in the database before the push.

    Returns:
      False when the message does not come from the wrapper.
    """
    what = underway()
    if what is None or what.message.message_id != message.message_id:
        return False
    what.before_push(message)
    return True


def _wait(message: AnyMessage, delay: int | None, now: int) -> int:
    """Milliseconds until the message is meant to start."""
    eta = message.options.get("eta")
    # A consumer waits for it where the sender has named no delay.
    if delay is None and isinstance(eta, (int, float)):
        return max(int(eta) - now, 0)
    return delay or 0
