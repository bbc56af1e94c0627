"""Many messages to the broker in one round trip, where it can."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from .sending import Enqueue

Message = dramatiq.Message[Any]


class Pipelining:
    """Pushes messages that have their audits; many as if each was pushed by itself.

    A RedisBroker enqueues by a script; the calls of it that a thread makes in :meth:`push_all` are
    collected, and go out together.  Other brokers take one message after the other.
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
        pipe = getattr(self._collecting, "pipe", None)
        return self._script(**options) if pipe is None else self._script(**options, client=pipe)

    def push_all(self, messages: Sequence[tuple[Message, int | None]]) -> list[Message | Exception]:
        """What each push, of a message with its delay, has returned or raised.

        When the connection fails all raise, and it is not known which of them have arrived.
        """
        if not self.collects or len(messages) == 1:
            return [self._attempt(*each) for each in messages]
        results, ends = [], []
        with self._client.pipeline(transaction=False) as pipe:
            self._collecting.pipe = pipe
            try:
                for message, delay in messages:
                    results.append(self._attempt(message, delay))
                    ends.append(len(pipe))
            finally:
                del self._collecting.pipe
            try:
                answers: Sequence[Any] = pipe.execute(raise_on_error=False)
            except (redis.RedisError, OSError) as error:
                answers = [error] * ends[-1]
        for number, (start, end) in enumerate(pairwise([0, *ends])):
            failed = [each for each in answers[start:end] if isinstance(each, Exception)]
            if failed and not isinstance(results[number], Exception):
                results[number] = failed[0]
        return results

    def _attempt(self, message: Message, delay: int | None) -> Message | Exception:
        enqueue = self._broker.enqueue
        push = enqueue.push if isinstance(enqueue, Enqueue) else enqueue
        try:
            pushed: Message = push(message, delay=delay)
        except Exception as error:  # noqa: BLE001 - the caller judges it
            return error
        return pushed
