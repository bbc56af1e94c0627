"""Sends that coroutines await: threads make them, so that no event loop waits for a database or a broker."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.logging import get_logger

from .connections import LANES
from .errors import DurableError, OptionError, reason
from .messages import epoch_of
from .registry import Registry
from .transactions import transaction_of
from .underway import Message

logger = get_logger(__name__)


class Senders:
    """As many threads as have a connection to the database each; on RabbitMQ each keeps one to the broker, too.

    The threads that a loop has for everything else are for the application, which wants them most
    when a database does not answer.
    """

    def __init__(self) -> None:
        self._start()
        start = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (method := start()) and method())

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(LANES, thread_name_prefix="dramatiq-durable-send")

    async def run(
        self, send: Callable[[], Message], abandoned: Callable[[Future[Message]], None]
    ) -> Message:
        """Have a thread *send*, in the context of the task that awaits it.

        When that is cancelled a send that has begun goes on, and *abandoned* is called with its outcome.
        """
        loop = asyncio.get_running_loop()  # where there is none, nothing shall be sent
        future = self._threads.submit(contextvars.copy_context().run, send)
        try:
            return await asyncio.wrap_future(future, loop=loop)
        except (asyncio.CancelledError, GeneratorExit):
            if not future.cancel():
                future.add_done_callback(abandoned)
            raise


class Asynchronous(Registry):
    """What the middleware offers to applications of asyncio."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._senders = Senders()

    async def enqueue_async(
        self, message: dramatiq.Message[Any], *, delay: int | timedelta | None = None
    ) -> Message:
        """``broker.enqueue()`` for coroutines: a thread does it, and the event loop goes on meanwhile.

        When it returns the audit is committed, and when it raises there is none.  When the task that awaits it is
        cancelled, a send that has begun goes on, and is logged if it fails; one that still waits
        for one of the threads is not made.  What the sender may override is called in the thread.

        Parameters:
          message: As ``actor.message()`` makes it.
          delay: Until it is meant to start, milliseconds or timedelta.  Default: none.

        Raises:
          OptionError: In a transaction of the same Peewee database, which may be another task's of this thread, or in
            ``transaction()``; for what a thread sends is no part of it.
          AuditWriteFailed: The audit could not be written.
          RuntimeError: No event loop of asyncio runs here; nothing is sent.
        """
        if self.broker is None:
            raise DurableError("this DurableMiddleware has no broker; declare an actor on it first")
        if isinstance(delay, timedelta):
            delay = delay // timedelta(milliseconds=1)
        self._refuse_in_transaction(message)
        send = functools.partial(self.broker.enqueue, message, delay=delay)
        return await self._senders.run(send, functools.partial(_log_failure, message))

    def _refuse_in_transaction(self, message: dramatiq.Message[Any]) -> None:
        policy = self.policy(message)
        first = policy.durable and epoch_of(message) is None
        if first and transaction_of(self, self.store_for(policy)) is not None:
            raise OptionError(
                f"the message for {message.actor_name!r} is to be sent by another thread, so that it cannot be "
                "part of the transaction that is open here; send() is part of it, or await this after the commit"
            )


def _log_failure(message: dramatiq.Message[Any], sent: Future[Message]) -> None:
    error = sent.exception()
    if error is not None:
        logger.error(
            "Message %s of actor %r was not sent (%s), and the task that awaited that was cancelled.",
            message.message_id,
            message.actor_name,
            reason(error),
        )
