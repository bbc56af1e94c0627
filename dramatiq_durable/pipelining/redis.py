"""Many messages to Redis in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis

from ..underway import Underway, underway
from .base import Call, Collected, Pipelining, Push


class RedisPipelining(Pipelining):
    """A RedisBroker enqueues by a script; the calls of it that a thread makes in :meth:`collect` are kept."""

    def __init__(self, broker: RedisBroker) -> None:
        super().__init__(broker)
        self._client: Any = broker.client
        self._collecting = threading.local()
        self._script = broker.scripts["dispatch"]
        broker.scripts["dispatch"] = self._dispatch
        self._emit_after = broker.emit_after
        broker.emit_after = self._after  # type: ignore[method-assign]

    @property
    def collects(self) -> bool:
        return True

    def _collected(self) -> Collected | None:
        collected: Collected | None = getattr(self._collecting, "collected", None)
        # What a hook of another middleware sends meanwhile is on a way of its own.
        return collected if collected is not None and underway() is collected.of else None

    def _dispatch(self, **options: Any) -> Any:
        collected = self._collected()
        return self._script(**options) if collected is None else collected.calls.append(options)

    def _after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        collected = self._collected() if signal == "enqueue" else None
        if collected is None:
            self._emit_after(signal, *args, **kwargs)
        else:
            collected.after.append(args)

    def collect(self, push: Callable[[Push], object], of: Underway | None = None) -> Collected:
        before = getattr(self._collecting, "collected", None)
        collected = self._collecting.collected = Collected(of)
        try:
            push(self.push)
        finally:
            self._collecting.collected = before
        return collected

    def send(self, collected: Sequence[Sequence[Call]]) -> list[Exception | None]:
        # When the connection fails that is the error of them all, for it is not known which have arrived.
        with self._client.pipeline(transaction=False) as pipe:
            for calls in collected:
                for call in calls:
                    command, _collected_at, *rest = call["args"]
                    # By it Redis judges whether this process is alive.
                    args = [command, current_millis(), *rest]
                    self._script(keys=call["keys"], args=args, client=pipe)
            try:
                answers = iter(pipe.execute(raise_on_error=False))
            except (redis.RedisError, OSError) as error:
                return [error] * len(collected)
        errors: list[Exception | None] = []
        for calls in collected:
            failed = [each for each in islice(answers, len(calls)) if isinstance(each, Exception)]
            errors.append(failed[0] if failed else None)
        return errors
