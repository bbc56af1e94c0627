"""Many messages to the broker in one round trip, where it can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis

from .sending import Enqueue
from .underway import Underway, underway

Message = dramatiq.Message[Any]

#: Of the script by which a RedisBroker enqueues.
Call: TypeAlias = "dict[str, Any]"


@dataclass
class Collected:
    """What a push would have done outside this process: its script calls, and the hooks after it."""

    of: Underway | None
    calls: list[Call] = field(default_factory=list)
    after: list[tuple[Message, int | None]] = field(default_factory=list)


class Pipelining:
    """Pushes messages that have their audits; many as if each was pushed by itself.

    A RedisBroker enqueues by a script; the calls of it that a thread makes in :meth:`collect` are
    kept, to go out together.  Other brokers take one message after the other.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        enqueue: Any = broker.enqueue
        #: The broker's own ``enqueue``.
        self.push: Any = enqueue.push if isinstance(enqueue, Enqueue) else enqueue
        self._broker = broker
        self._client: Any = None
        self._collecting = threading.local()
        if isinstance(broker, RedisBroker):
            self._client, scripts = broker.client, broker.scripts
            self._script = scripts["dispatch"]
            scripts["dispatch"] = self._dispatch
            self._emit_after = broker.emit_after
            broker.emit_after = self._after  # type: ignore[method-assign]

    @property
    def collects(self) -> bool:
        """Whether several messages take one round trip."""
        return self._client is not None

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

    def collect(self, push: Callable[[], object], of: Underway | None = None) -> Collected:
        """What *push*, of what is underway, would have done; it is yet to be done."""
        before = getattr(self._collecting, "collected", None)
        collected = self._collecting.collected = Collected(of)
        try:
            push()
        finally:
            self._collecting.collected = before
        return collected

    def send(self, collected: Sequence[Sequence[Call]]) -> list[Exception | None]:
        """Make these calls in one round trip; returns the first error of each sequence of them.

        When the connection fails it is one of them all, and not known which have arrived.
        """
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

    def pushed(self, after: Sequence[tuple[Message, int | None]]) -> None:
        """Tell the hooks what was sent."""
        for message, delay in after:
            self._broker.emit_after("enqueue", message, delay)

    def push_all(self, messages: Sequence[tuple[Message, int | None]]) -> list[Message | Exception]:
        """What each push, of a message with its delay, has returned or raised."""
        if not self.collects or len(messages) == 1:
            return [self._attempt(*each) for each in messages]
        results: list[Message | Exception] = []
        collected = [
            self.collect(lambda each=each: results.append(self._attempt(*each)))  # type: ignore[misc]
            for each in messages
        ]
        errors = self.send([each.calls for each in collected])
        for number, (each, error) in enumerate(zip(collected, errors, strict=True)):
            if error is None:
                self.pushed(each.after)
            elif not isinstance(results[number], Exception):
                results[number] = error
        return results

    def _attempt(self, message: Message, delay: int | None) -> Message | Exception:
        try:
            pushed: Message = self.push(message, delay=delay)
        except Exception as error:  # noqa: BLE001 - the caller judges it
            return error
        return pushed
