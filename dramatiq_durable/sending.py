"""The contract of ``send()``: the broker instance's ``enqueue``, with an audit around it.

Dramatiq has no hook for a push that was refused, postponed or never begun, so
``enqueue`` of the broker instance is wrapped.  The audit itself is written in
``before_enqueue``, where the message is as it goes out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError

from .errors import AuditLocked, DatabaseUnreachable, DurableError, reason
from .messages import AnyMessage, epoch_of, normalised
from .store import Store
from .transactions import Transaction
from .underway import AsItIs, FirstSend, Hooks, KeyTaken, Message, Refused, Retry, push
from .working import Run, current_run

Take: TypeAlias = "Callable[[Any, int | None], bool]"

logger = get_logger(__name__)

#: Seconds after which a database that did not answer is told again where the broker keeps a message.
FOLLOW_AGAIN = 30.0

#: Takes the first sends of an Enqueue, to send them together; False for one that it does not take.
_gathering: ContextVar[tuple[Enqueue, Take] | None] = ContextVar("durable_gathering", default=None)

#: The message that was enqueued again last in this context.
_enqueued_again: ContextVar[str | None] = ContextVar("durable_enqueued_again", default=None)

#: What the consumers of delay queues hold, by message_id, as long as they do.
_delayed: WeakValueDictionary[str, MessageProxy] = WeakValueDictionary()


class Enqueue:
    """Stands in for ``broker.enqueue``; :attr:`push` is the broker's own."""

    def __init__(self, hooks: Hooks, broker: dramatiq.Broker) -> None:
        self.hooks = hooks
        self.broker = broker
        self.push = broker.enqueue
        self._follow_at: dict[Any, float] = {}  # by table, on the monotonic clock

    def __call__(self, message: AnyMessage, *, delay: int | None = None) -> Message:
        run = current_run()
        if run is None and message.message_id in _delayed:
            return self._move(message, delay)
        if run is None or run.in_body:
            return self._enqueue(message, delay)
        if message.message_id == run.claim.message_id:
            return self._retry(run, message, delay)
        compensates = run.is_compensated_by(message)
        if compensates and run.completed:
            logger.warning(
                "Message %s is complete; nothing has to make up for it.", run.claim.message_id
            )
            return normalised(message)
        with following_up():
            enqueued = self._enqueue(message, delay)
        run.compensated = run.compensated or compensates
        return enqueued

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
        if message.message_id in _delayed or not self.hooks.policy(message).durable:
            return push(self.push, AsItIs(message), delay)
        enqueue, take = _gathering.get() or (None, None)
        if take is not None and enqueue is self and take(message, delay):
            return message  # type: ignore[return-value]
        first = FirstSend(self.hooks, self.broker, message, delay)  # type: ignore[arg-type]
        try:
            transaction = first.transaction()
            if transaction is not None:
                return self._after_commit(first, delay, transaction)
            return self._first(first, delay)
        except KeyTaken as taken:
            return message.copy(message_id=taken.message_id)
        except Refused:
            assert first.error is not None
            raise first.error from first.error.__cause__

    def _move(self, message: AnyMessage, delay: int | None) -> Message:
        """What the consumer of a delay queue sends on; it ends for good when that raises another error."""
        try:
            return self._enqueue(message, delay)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None

    def _first(self, first: FirstSend, delay: int | None) -> Message:
        message_id = first.message.message_id
        try:
            return push(self.push, first, delay)
        except MiddlewareError:
            # Another middleware refuses the message; ours has seen it, or not.
            if first.inserted:
                _best_effort(message_id, first.store.withdraw, message_id)
            raise
        except Exception as error:
            first.write(first.message)
            if first.new is None:
                raise
            if first.inserted:
                _best_effort(message_id, first.store.push_refused, first.new)
            self.hooks.enqueue_failed(self.broker, first.message, error)
            return first.message

    def _after_commit(
        self, first: FirstSend, delay: int | None, transaction: Transaction
    ) -> Message:
        first.write(first.message, transaction)
        transaction.after_commit(lambda store: self._push_committed(first, delay, store))
        return first.message

    def _push_committed(self, first: FirstSend, delay: int | None, store: Store) -> None:
        """Push what a transaction committed; an error in here would break the caller's other callbacks."""
        new, message_id = first.new, first.message.message_id
        try:
            # Peewee calls back for a savepoint that was rolled back, too.
            if new is None or store.begin_push(new):
                pushed = self.push(first.message, delay=delay)
                new is None or store.pushed(new, pushed.options.get("redis_message_id"))
        except DatabaseUnreachable as error:
            logger.warning("Message %s is left to the monitor: %s", message_id, error)
        except Exception as error:
            if new is not None:
                refused = functools.partial(store.push_refused, in_transaction=True)
                _best_effort(message_id, refused, new)
            _best_effort(message_id, self.hooks.enqueue_failed, self.broker, first.message, error)

    def _again(self, message: AnyMessage, delay: int | None) -> Message:
        """A message that has its audit: moved from its delay queue, or enqueued again by its sender."""
        pushed = self.push(message, delay=delay)  # type: ignore[arg-type]
        _enqueued_again.set(message.message_id)
        broker_id, epoch = pushed.options.get("redis_message_id"), epoch_of(message)
        if broker_id is not None and epoch is not None:
            self._follow(message, epoch, broker_id)
        return pushed

    def _follow(self, message: AnyMessage, epoch: int, broker_id: str) -> None:
        """Note where the broker has the message now; a monitor that does not know sends it again at the worst."""
        store = self.hooks.store_for(self.hooks.policy(message))
        if time.monotonic() < self._follow_at.get(store.audit, 0.0):
            return
        try:
            store.follow(message.message_id, epoch, broker_id)
        except Exception as error:
            if isinstance(error, DatabaseUnreachable) and not isinstance(error, AuditLocked):
                # The consumer of a delay queue has others to move, plain ones too.
                self._follow_at[store.audit] = time.monotonic() + FOLLOW_AGAIN
            logger.warning(
                "Message %s is moved, which is not noted: %s", message.message_id, reason(error)
            )

    def _retry(self, run: Run, message: AnyMessage, delay: int | None) -> Message:
        """Never raises: Retries would lose the message, and Dramatiq would not say so."""
        if run.completed:
            logger.warning("Message %s is complete; its retry is not sent.", message.message_id)
            return normalised(message)
        message_id = message.message_id
        if not _best_effort(message_id, run.find_out):
            return push(self.push, AsItIs(message), delay)
        retry = Retry(run, message, delay)
        try:
            return push(self.push, retry, delay)
        except Exception as error:
            retry.before_push(retry.message)
            _best_effort(message_id, run.store.retry_refused, message_id, retry.epoch, retry.delay)
            _best_effort(message_id, self.hooks.enqueue_failed, self.broker, retry.message, error)
            return retry.message


@contextmanager
def following_up() -> Iterator[None]:
    """What is sent in a hook after a body follows from its job, which is not carried out to its end without it."""
    run = current_run()
    try:
        yield
    except BaseException:
        # Dramatiq swallows what its Pipelines and Callbacks raise.
        if run is not None and not run.in_body:
            run.follow_up_failed = run.follow_up_failed or run.body_ended
        raise


def is_gathering(enqueue: Enqueue) -> bool:
    return (_gathering.get() or (None,))[0] is enqueue


@contextmanager
def gathering(enqueue: Enqueue, take: Take) -> Iterator[None]:
    """Offer the first sends of *enqueue* to *take*, in this context."""
    before = _gathering.set((enqueue, take))
    try:
        yield
    finally:
        _gathering.reset(before)


def was_enqueued_again(message: AnyMessage) -> bool:
    """Another middleware has put *message*, which is being processed here, back into its queue."""
    return _enqueued_again.get() == message.message_id


def forget_enqueued_again() -> None:
    _enqueued_again.set(None)


def note_delayed(message: MessageProxy) -> None:
    """A consumer keeps *message* until its eta, and then moves it to its queue."""
    _delayed[message.message_id] = message


def _best_effort(message_id: str, write: Any, *args: Any) -> Any:
    """Where the audit is due later anyway, an error must not make the sender believe in a failure."""
    try:
        return write(*args)
    except Exception as error:
        logger.warning("Message %s is left to the monitor: %s", message_id, reason(error))
        return None
