"""Pushes of messages that have their audits, one after the other or together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import dramatiq

from ..outages import NotTried, is_outage
from ..sending import Enqueue
from ..underway import Underway

Message = dramatiq.Message[Any]

#: What a broker is told of one message; it can be pickled.
Call: TypeAlias = "dict[str, Any]"

#: The ``enqueue`` of a broker, or what does as much of it as is done in this process.
Push: TypeAlias = "Callable[..., Message]"


@dataclass
class Collected:
    """What a push would have done outside this process: its calls of the broker, and the hooks after it."""

    of: Underway | None
    calls: list[Call] = field(default_factory=list)
    after: list[tuple[Message, int | None]] = field(default_factory=list)


class Pipelining:
    """Pushes messages that have their audits, one after the other.

    Its subclasses push many together, as if each was pushed by itself: :meth:`collect` what is to
    be done, :meth:`send` it, and tell the hooks what was :meth:`pushed`.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        enqueue: Any = broker.enqueue
        #: The broker's own ``enqueue``.
        self.push: Push = enqueue.push if isinstance(enqueue, Enqueue) else enqueue
        self._broker = broker

    @property
    def collects(self) -> bool:
        """Whether several messages take one round trip."""
        return False

    def collect(self, push: Callable[[Push], object], of: Underway | None = None) -> Collected:
        """What *push*, of what is underway, would have done with the ``enqueue`` that it is given; it is yet to be done."""
        raise NotImplementedError

    def send(self, collected: Sequence[Sequence[Call]]) -> list[Exception | None]:
        """Make these calls together; returns the first error of each sequence of them.

        What has an error may have arrived all the same.
        """
        raise NotImplementedError

    def pushed(self, after: Sequence[tuple[Message, int | None]]) -> None:
        """Tell the hooks what was sent."""
        for message, delay in after:
            self._broker.emit_after("enqueue", message, delay)

    def push_all(self, messages: Sequence[tuple[Message, int | None]]) -> list[Message | Exception]:
        """What each push, of a message with its delay, has returned or raised."""
        if not self.collects or len(messages) == 1:
            return [self._attempt(*each) for each in messages]
        results: list[Message | Exception] = []
        collected = []
        for pair in messages:
            if results and is_outage(results[-1]):  # where nobody answers that may have taken long
                results.append(NotTried())
                collected.append(Collected(None))
            else:
                collected.append(self.collect(partial(self._attempt_for, results, *pair)))
        errors = self.send([each.calls for each in collected])
        for number, (each, error) in enumerate(zip(collected, errors, strict=True)):
            if error is None:
                self.pushed(each.after)
            elif not isinstance(results[number], Exception):
                results[number] = error
        return results

    def _attempt_for(
        self, results: list[Message | Exception], message: Message, delay: int | None, push: Push
    ) -> None:
        results.append(self._attempt(message, delay, push))

    def _attempt(
        self, message: Message, delay: int | None, push: Push | None = None
    ) -> Message | Exception:
        try:
            return (push or self.push)(message, delay=delay)
        except Exception as error:  # noqa: BLE001 - the caller judges it
            return error
