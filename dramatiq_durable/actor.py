"""``durable_actor``: an actor whose messages survive the loss of the broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import dramatiq

from .bulk import Progress
from .errors import OptionError
from .middleware import find_middleware

P = ParamSpec("P")
R = TypeVar("R")


class DurableActor(dramatiq.Actor[P, R]):
    """An actor whose messages survive the loss of the broker."""

    async def send_async(self, *args: P.args, **kwargs: P.kwargs) -> dramatiq.Message[R]:
        """``send()`` for coroutines: a thread sends the message, and the event loop goes on meanwhile.

        :meth:`DurableMiddleware.enqueue_async` says more.  In a transaction it is refused where
        ``send()`` is part of that.
        """
        return await self.send_with_options_async(args=args, kwargs=kwargs)

    async def send_with_options_async(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: int | timedelta | None = None,
        **options: Any,
    ) -> dramatiq.Message[R]:
        """``send_with_options()`` for coroutines, see :meth:`send_async`."""
        message = self.message_with_options(args=args, kwargs=kwargs, **options)
        return await find_middleware(self.broker).enqueue_async(message, delay=delay)

    def send_many(
        self,
        arguments: Iterable[Sequence[Any]],
        *,
        delay: int | timedelta | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Send a message for each tuple of positional arguments, all of them or none.

        :meth:`DurableMiddleware.send_many` says more; with ``actor.message()`` it takes keyword arguments too.
        """
        return find_middleware(self.broker).send_many(
            map(self._message, arguments), delay=delay, progress=progress
        )

    def _message(self, arguments: Any) -> dramatiq.Message[R]:
        if not isinstance(arguments, (tuple, list)):
            raise OptionError(
                f"send_many() of {self.actor_name!r} takes a tuple of arguments for each message, "
                f"not {type(arguments).__name__}"
            )
        message: dramatiq.Message[R] = self.message_with_options(args=tuple(arguments))
        return message


class ActorDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]]) -> DurableActor[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> DurableActor[P, R]: ...


@overload
def durable_actor(fn: Callable[P, Awaitable[R]], **options: Any) -> DurableActor[P, R]: ...
@overload
def durable_actor(fn: Callable[P, R], **options: Any) -> DurableActor[P, R]: ...
@overload
def durable_actor(**options: Any) -> ActorDecorator: ...
def durable_actor(fn: Any = None, **options: Any) -> Any:
    """Declare an actor whose messages are audited: :func:`dramatiq.actor` with ``durable=True``.

    It takes every option of :func:`dramatiq.actor`, and of the middleware of its broker.  When
    ``send()`` returns, the audit of the message is committed, and the job will
    run, whatever happens to the broker; when it raises there is no audit, and
    the job will not run.  Inside a transaction of the same Peewee database the audit
    is part of it, and the message is pushed after its commit; for SQLAlchemy and
    Django see :meth:`DurableMiddleware.transaction`.

    ``actor.send_many()`` sends many messages together, and ``await actor.send_async()`` blocks no event loop.
    ``actor.send_with_options(unique_key="…")`` sends nothing while a job with that key is open, whose message
    id then comes back.

    Parameters (durations are integers in milliseconds, or timedeltas):
      job_timeout: How long a message may wait for a worker, or run without a heartbeat, before
        it counts as stale.  Default 600,000.  It interrupts nothing; ``time_limit`` does.
      heartbeat_interval: How often a running job's lease is renewed; the lease lasts
        four times as long.  Default 10,000; None for no heartbeats, and a lease of ``job_timeout``.
      backoff: How long to wait beyond that, by ``enqueue_count``.  Default :func:`cubic_backoff`.
      max_crashes: After so many crashes the job is dead.  Default None, for no limit.
      max_payload_size: The largest encoded message, in bytes.  Default None, for no limit.
      requeue_on_shutdown: When Dramatiq interrupts the actor because the worker is to
        stop, run it again.  Default False; True implies ``notify_shutdown``.
      audit_model: The subclass of :class:`Audit` to keep the audits in.  Default: the middleware's own.

    Raises:
      ValueError: An option makes no sense, or the broker has no DurableMiddleware.
    """
    options.setdefault("durable", True)
    options.setdefault("actor_class", DurableActor)
    if fn is None:
        return dramatiq.actor(**options)
    return dramatiq.actor(**options)(fn)
