"""The contract of ``send()`` for many messages: all audits in one transaction, then all pushes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import dramatiq
import peewee
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError

from .bulk_pushes import LEFT, BulkPushes, Sent, best_effort
from .counters import count_unaudited
from .errors import OptionError, reason
from .messages import UNIQUE_KEY, epoch_of
from .pipelining import Collected, Pipelining
from .spool import IN_MEMORY, Spool
from .store import MOST, NewAudit, Store
from .transactions import Transaction, transaction_of
from .underway import FirstSend, Hooks, Message, Refused, push

logger = get_logger(__name__)

#: Bytes of payloads in a statement, and of messages in a round trip to the broker.
LARGEST_PART = 2**20

#: Bytes that a message takes in memory besides its payload, about.
OVERHEAD = 3_000

#: ``progress(taken, sent)``: how many were taken from the iterator, and how many are with the broker, or left to a monitor.
Progress = Callable[[int, int], object]


class SenderHooks(Hooks, Protocol):
    """What a bulk asks of the middleware."""

    @property
    def pipelining(self) -> Pipelining: ...


class _First(FirstSend):
    """A message whose push is begun before its audit is written, as far as nothing leaves this process."""

    audit: NewAudit | None = None

    def before_push(self, message: Message) -> None:
        try:
            self.audit = self.audit_of(message)
        except Exception as error:
            self.error = error
            raise Refused from error


class Bulk:
    """Messages that are sent together; :meth:`add` them, then :meth:`send`."""

    def __init__(
        self, hooks: SenderHooks, broker: dramatiq.Broker, progress: Progress | None = None
    ) -> None:
        self._hooks = hooks
        self._broker = broker
        self._progress = progress or (lambda taken, sent: None)
        self._tells = any(
            type(each).after_enqueue is not dramatiq.Middleware.after_enqueue
            for each in broker.middleware
        )
        self._collects = hooks.pipelining.collects
        self._store: Store | None = None
        self._in_transaction = False
        self._parts: Spool[list[Sent]] = Spool()
        self._part: list[Sent] = []
        self._size = 0
        self._count = 0
        self._soonest = timedelta.max  # until the first audit is due
        self._there: set[str] = set()  # messages that had their audits before

    def take(self, message: Message, delay: int | None) -> bool:
        """Add *message*, unless it has to be sent in another way."""
        policy = self._hooks.policy(message)
        takes = (
            policy.durable
            and message.options.get(UNIQUE_KEY) is None
            and self._store in {None, self._hooks.store_for(policy)}
        )
        if takes:
            self.add(message, delay)
        return takes

    def add(self, message: Message, delay: int | None) -> None:
        if not isinstance(message, dramatiq.Message):
            raise OptionError(f"send_many() takes messages, not {type(message).__name__}")
        if epoch_of(message) is not None:
            raise OptionError(f"message {message.message_id} was sent before; enqueue it by itself")
        if message.options.get(UNIQUE_KEY) is not None:
            raise OptionError(
                f"the message for {message.actor_name!r} has a unique_key, which send_many() does not look up; "
                "send it by itself"
            )
        first = _First(self._hooks, self._broker, message, delay)
        self._check(first)
        try:
            collected = self._begin(first, delay)
        except Refused:
            assert first.error is not None
            raise first.error from first.error.__cause__
        new = first.audit
        assert new is not None
        self._soonest = min(self._soonest, new.job_timeout + new.backoff)
        self._keep(_sent(new, first.message, delay, collected, self._tells))

    def _check(self, first: _First) -> None:
        name = first.message.actor_name
        if not first.policy.durable:
            raise OptionError(f"actor {name!r} is not durable; enqueue its messages one by one")
        if self._store is None:
            self._store = first.store
            # Values of columns of the application's may be expressions, which no file takes.
            self._parts = Spool(float("inf") if first.store.has_own_columns else IN_MEMORY)
        elif first.store is not self._store:
            raise OptionError(
                f"actor {name!r} has another audit_model than those before it; "
                "send the messages of each by themselves"
            )

    def _begin(self, first: _First, delay: int | None) -> Collected | None:
        """What is left of its push; None when all of it is."""
        pipelining = self._hooks.pipelining
        if self._collects:
            try:
                return pipelining.collect(lambda enqueue: push(enqueue, first, delay), first)
            except MiddlewareError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a broker raises, the audits are written
                # For its first push a RedisBroker asks Redis for a number, and RabbitMQ's declares the queue.
                logger.debug("The broker is not there: %s", reason(error))
                self._collects = False
        if first.audit is None:
            first.before_push(first.message)
        return None

    def _keep(self, sent: Sent) -> None:
        size = len(sent.new.payload)
        if self._part and self._size + size > LARGEST_PART:
            self._end_part()
        self._part.append(sent)
        self._size += size
        self._count += 1
        if len(self._part) == MOST:
            self._end_part()

    def _end_part(self) -> None:
        if self._part:
            self._parts.append(self._part, 3 * self._size + OVERHEAD * len(self._part))
            self._part, self._size = [], 0
            self._progress(self._count, 0)

    def send(self) -> int:
        """Write all audits, push all messages; returns how many.

        Raises:
          AuditWriteFailed: Nothing is written, and nothing was pushed.
        """
        self._end_part()
        if self._store is None:
            return 0
        transaction = transaction_of(self._hooks, self._store)
        self._in_transaction = transaction is not None
        began, audited = time.monotonic(), True
        try:
            self._write_all(self._store, transaction)
        except Exception as error:  # noqa: BLE001 - the hook judges it
            self._audits_failed(error)
            audited = False
        if transaction is None:
            self._push(self._store, began, audited)
        else:
            transaction.after_commit(
                lambda store: best_effort(LEFT, self._push, store, began, audited)
            )
        return self._count

    def _push(self, store: Store, began: float, audited: bool) -> None:
        pushes = BulkPushes(self._hooks, self._broker, store, self._parts, self._count)
        pushes.audited = audited
        pushes.there = self._there
        pushes.was_out = self._is_out(store)
        # What was inserted as if it were being pushed need not be elected, unless it is late.
        pushes.elect_after = self._soonest.total_seconds() / 2 if pushes.was_out else 0.0
        pushes.run(began, self._progress)

    def _is_out(self, store: Store) -> bool:
        return not self._in_transaction and not store.has_own_columns

    def _write_all(self, store: Store, transaction: Transaction | None) -> None:
        if transaction is None:
            store.together(lambda lane: self._write(store, lane))
            return
        with transaction.part(is_one_statement=False):
            self._write(store, transaction.database)

    def _write(self, store: Store, transaction: peewee.Database) -> None:
        self._there.clear()
        for part in self._parts:
            news = [sent.new for sent in part]
            self._there |= store.enqueue_all(news, transaction, is_out=self._is_out(store))

    def _audits_failed(self, error: Exception) -> None:
        for part in self._parts:
            for sent in part:
                self._hooks.audit_failed(self._broker, sent.message, error)
        count_unaudited(self._broker, self._count)


def _sent(
    new: NewAudit, message: Message, delay: int | None, collected: Collected | None, tells: bool
) -> Sent:
    if collected is None:
        return Sent(new, delay, (), message.encode(), ())
    after = [(each.encode(), wait) for each, wait in collected.after] if tells else ()
    return Sent(new, delay, collected.calls, None, after)
