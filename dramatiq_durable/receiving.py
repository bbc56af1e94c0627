"""A wait for a queue that ends when it is to."""

from __future__ import annotations

import contextlib
import queue
from typing import TypeVar

T = TypeVar("T")


def receive(inbox: queue.SimpleQueue[T], seconds: float | None) -> T:
    """What comes within so many *seconds*; None: however long it takes.

    A ``get(timeout=…)`` alone may wait for ever: where the thread stood still for that long between two looks,
    CPython waits for a negative time, and takes that for no limit.  There is no second look after a ``get_nowait()``.

    Raises:
      queue.Empty: Nothing has come.
    """
    with contextlib.suppress(queue.Empty):
        return inbox.get_nowait()
    return inbox.get(timeout=seconds)
