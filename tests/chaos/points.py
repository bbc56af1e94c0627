"""Named points in the code at which a process of these tests may kill itself."""

from __future__ import annotations

import functools
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import dramatiq

from dramatiq_durable.store import Store

from .ledger import Ledger

#: Each is a point before it and one after it.
WRITES = (
    "enqueue", "pushed", "begin_push", "push_refused",
    "claim", "complete", "complete_in", "release", "requeue",
    "mark", "confirm", "unmark", "expire", "cleanup",
)  # fmt: skip


class Points:
    """Kills this process with *chance* at each point it comes by."""

    def __init__(self, ledger: Ledger, chance: float, seed: str) -> None:
        self._ledger = ledger
        self._chance = chance
        self._random = random.Random(seed)

    def install(self, broker: dramatiq.Broker) -> None:
        for name in WRITES:
            setattr(Store, name, self._around(name, getattr(Store, name)))
        push: Any = broker.enqueue
        broker.enqueue = self._around("push", push)  # type: ignore[method-assign]

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def around(*args: Any, **kwargs: Any) -> Any:
            self.come_by(f"before-{name}")
            result = call(*args, **kwargs)
            self.come_by(f"after-{name}")
            return result

        return around

    def come_by(self, point: str) -> None:
        if self._random.random() < self._chance:
            self._ledger.write("KILL", os.getpid(), point)
            os.kill(os.getpid(), signal.SIGKILL)
