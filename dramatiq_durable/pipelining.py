"""Many messages to the broker in one round trip, where it can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from .sending import Enqueue
from .underway import Underway, underway

Message = dramatiq.Message[Any]

#: Of the script by which a RedisBroker enqueues.
Call: TypeAlias = "dict[str, Any]"

T = TypeVar("T")


class Pipelining:
    """Pushes messages that have their audits; many as if each was pushed by itself.

    A RedisBroker enqueues by a script; the calls of it that a thread makes in :meth:`collect` are
    kept, to go out together.  Other brokers take one message after the other.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        self._broker: Any = broker
        self._client: Any = None
        self._collecting = threading.local()
        if isinstance(broker, RedisBroker):
            self._client, scripts = broker.client, broker.scripts
            self._script = scripts["dispatch"]
            scripts["dispatch"] = self._dispatch

    @property
    def collects(self) -> bool:
        """Whether several messages take one round trip."""
        return self._client is not None

    def _dispatch(self, **options: Any) -> Any:
        calls, of = getattr(self._collecting, "state", (None, None))
        # What a hook of another middleware sends meanwhile is on a way of its own.
        if calls is None or underway() is not of:
            return self._script(**options)
        return calls.append(options)

    def collect(self, push: Callable[[], T], of: Underway | None = None) -> tuple[T, list[Call]]:
        """What *push*, *of* what is underway, returns, and the calls that it has made, which are yet to be sent."""
        calls: list[Call] = []
        before = getattr(self._collecting, "state", (None, None))
        self._collecting.state = calls, of
        try:
            return push(), calls
        finally:
            self._collecting.state = before

    def send(self, collected: Sequence[Sequence[Call]]) -> list[Exception | None]:
        """Make these calls in one round trip; returns the first error of each sequence of them.

        When the connection fails it is one of them all, and not known which have arrived.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for calls in collected:
                for call in calls:
                    self._script(**call, client=pipe)
            try:
                answers = iter(pipe.execute(raise_on_error=False))
            except (redis.RedisError, OSError) as error:
                return [error] * len(collected)
        errors: list[Exception | None] = []
        for calls in collected:
            failed = [each for _, each in zip(calls, answers) if isinstance(each, Exception)]  # noqa: B905 - the answers go on
            errors.append(failed[0] if failed else None)
        return errors

    def push_all(self, messages: Sequence[tuple[Message, int | None]]) -> list[Message | Exception]:
        """What each push, of a message with its delay, has returned or raised."""
        if not self.collects or len(messages) == 1:
            return [self._attempt(*each) for each in messages]
        pushed = [self.collect(lambda each=each: self._attempt(*each)) for each in messages]  # type: ignore[misc]
        errors = self.send([calls for _, calls in pushed])
        return [
            result if error is None or isinstance(result, Exception) else error
            for (result, _), error in zip(pushed, errors, strict=True)
        ]

    def _attempt(self, message: Message, delay: int | None) -> Message | Exception:
        enqueue = self._broker.enqueue
        push = enqueue.push if isinstance(enqueue, Enqueue) else enqueue
        try:
            pushed: Message = push(message, delay=delay)
        except Exception as error:  # noqa: BLE001 - the caller judges it
            return error
        return pushed
