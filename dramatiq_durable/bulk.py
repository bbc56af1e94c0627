"""The contract of ``send()`` for many messages: all audits in one transaction, then all pushes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dramatiq
import peewee
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError

from .errors import OptionError, reason
from .messages import epoch_of
from .pipelining import Call, Pipelining
from .sending import Enqueue
from .spool import Spool
from .store import MOST, NewAudit, Store
from .underway import FirstSend, Hooks, Message, Refused, push

logger = get_logger(__name__)

#: Bytes of payloads in a statement, and of messages in a round trip to the broker.
LARGEST_PART = 2**20

#: Bytes that a message takes in memory besides its payload, about.
OVERHEAD = 3_000

#: ``progress(written, sent)``: how many audits are in the transaction, and how many messages have been pushed after it.
Progress = Callable[[int, int], object]


class SenderHooks(Hooks, Protocol):
    """What a bulk asks of the middleware."""

    @property
    def pipelining(self) -> Pipelining: ...


@dataclass(frozen=True)
class Sent:
    """A message on its way: its audit, and how it is pushed."""

    new: NewAudit
    delay: int | None
    calls: Sequence[Call]
    encoded: bytes | None  # None: the calls have it, and for all else the audit's payload will do

    @property
    def message(self) -> Message:
        return dramatiq.Message.decode(self.encoded or self.new.payload)


class _Collected(FirstSend):
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
        self, hooks: SenderHooks, broker: dramatiq.Broker, progress: Progress | None
    ) -> None:
        enqueue: Any = broker.enqueue
        assert isinstance(enqueue, Enqueue)
        self._push: Any = enqueue.push
        self._hooks = hooks
        self._broker = broker
        self._progress = progress or (lambda written, sent: None)
        self._store: Store | None = None
        self._in_transaction = False
        self._audited = True  # False: audit_failed() lets them go without audits
        self._parts: Spool[list[Sent]] = Spool()
        self._part: list[Sent] = []
        self._size = 0
        self._count = 0
        self._soonest = float("inf")  # seconds until the first audit is due

    def take(self, message: Message, delay: int | None) -> bool:
        """Add *message*, unless it has to be sent in another way."""
        policy = self._hooks.policy(message)
        takes = policy.durable and self._store in {None, self._hooks.store_for(policy)}
        if takes:
            self.add(message, delay)
        return takes

    def add(self, message: Message, delay: int | None) -> None:
        if epoch_of(message) is not None:
            raise OptionError(f"message {message.message_id} was sent before; enqueue it by itself")
        first = _Collected(self._hooks, self._broker, message, delay)
        if not first.policy.durable:
            raise OptionError(
                f"actor {message.actor_name!r} is not durable; enqueue its messages one by one"
            )
        if self._store is None:
            self._store, self._in_transaction = first.store, first.in_transaction
        elif first.store is not self._store:
            raise OptionError(
                f"actor {message.actor_name!r} has another audit_model than those before it; "
                "send the messages of each by themselves"
            )
        try:
            calls = self._begin(first, delay)
        except Refused:
            assert first.error is not None
            raise first.error from first.error.__cause__
        new = first.audit
        assert new is not None
        encoded = first.message.encode() if calls is None else None
        self._soonest = min(self._soonest, (new.job_timeout + new.backoff).total_seconds())
        self._keep(Sent(new, delay, calls or (), encoded))

    def _begin(self, first: _Collected, delay: int | None) -> Sequence[Call] | None:
        """The calls that push it; None when it is pushed as a whole."""
        if self._hooks.pipelining.collects:
            try:
                _, calls = self._hooks.pipelining.collect(
                    lambda: push(self._push, first, delay), first
                )
                return calls
            except MiddlewareError:
                raise
            except Exception:  # noqa: BLE001 - for its first push a broker asks Redis for a number
                logger.debug("The broker is not there for message %s.", first.message.message_id)
        if first.audit is None:
            first.before_push(first.message)
        return None

    def _keep(self, sent: Sent) -> None:
        self._part.append(sent)
        self._count += 1
        self._size += len(sent.new.payload)
        if len(self._part) == MOST or self._size >= LARGEST_PART:
            self._end_part()

    def _end_part(self) -> None:
        if self._part:
            self._parts.append(self._part, 3 * self._size + OVERHEAD * len(self._part))
            self._part, self._size = [], 0

    def send(self) -> int:
        """Write all audits, push all messages; returns how many.

        Raises:
          AuditWriteFailed: Nothing is written, and nothing was pushed.
        """
        self._end_part()
        if self._store is None:
            return 0
        store = self._store
        began = time.monotonic()
        try:
            if self._in_transaction:
                # Theirs may go on after an error of ours.
                with store.database.atomic():
                    self._write(store, store.database)
            else:
                store.together(lambda lane: self._write(store, lane))
        except Exception as error:  # noqa: BLE001 - the hook judges it
            self._audits_failed(error)
        if self._in_transaction:
            store.database.after_commit(lambda: self._push_committed(store, began))
        else:
            self._push_all(store, began)
        return self._count

    def _is_out(self, store: Store) -> bool:
        return not self._in_transaction and not store.has_own_columns

    def _write(self, store: Store, transaction: peewee.Database) -> None:
        written = 0
        for part in self._parts:
            store.enqueue_all([sent.new for sent in part], transaction, is_out=self._is_out(store))
            written += len(part)
            self._progress(written, 0)

    def _audits_failed(self, error: Exception) -> None:
        for part in self._parts:
            for sent in part:
                self._hooks.audit_failed(self._broker, sent.message, error)
        self._audited = False

    def _push_committed(self, store: Store, began: float) -> None:
        """Push what a transaction committed; an error in here would break the caller's other callbacks."""
        try:
            self._push_all(store, began)
        except Exception as error:  # noqa: BLE001 - what is not pushed is left to the monitor
            logger.warning("Not all of %d messages are sent now: %s", self._count, reason(error))

    def _push_all(self, store: Store, began: float) -> None:
        sent = 0
        reached = True
        for part in self._parts:
            mine = self._elected(store, part, began)
            errors = self._push_part(mine) if reached else [_NotTried()] * len(mine)
            failed = [(each, error) for each, error in zip(mine, errors, strict=True) if error]
            # A broker that takes none of them is not asked once more for each of the others.
            reached = not mine or len(failed) < len(mine)
            if failed and self._audited:
                _best_effort(store.pushes_refused, [each.new for each, _ in failed])
            for each, error in failed:
                self._hooks.enqueue_failed(self._broker, each.message, error)
            sent += len(part)
            self._progress(self._count, sent)

    def _elected(self, store: Store, part: list[Sent], began: float) -> list[Sent]:
        """Those that no monitor has sent meanwhile."""
        is_out = self._is_out(store)
        if not self._audited or (is_out and time.monotonic() - began < self._soonest / 2):
            return part
        elected = _best_effort(store.begin_pushes, [each.new for each in part], was_out=is_out)
        return [each for each in part if each.new.message_id in (elected or ())]

    def _push_part(self, part: list[Sent]) -> Sequence[Exception | None]:
        if all(each.calls for each in part):
            return self._hooks.pipelining.send([each.calls for each in part])
        return [
            self._hooks.pipelining.send([each.calls])[0] if each.calls else self._push_one(each)
            for each in part
        ]

    def _push_one(self, sent: Sent) -> Exception | None:
        try:
            self._push(sent.message, delay=sent.delay)
        except Exception as error:  # noqa: BLE001 - whatever a broker raises, the audit is written
            return error
        return None


class _NotTried(Exception):
    """Those before it in the list were all refused."""


def _best_effort(write: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Where the audits are due later anyway, an error must not make the sender believe in a failure."""
    try:
        return write(*args, **options)
    except Exception as error:  # noqa: BLE001 - the monitor sends them
        logger.warning("Messages are left to the monitor: %s", reason(error))
        return None
