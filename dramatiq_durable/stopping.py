"""A flag that ends a wait, and that a signal handler may raise."""

from __future__ import annotations

import contextlib
import queue
import time

#: Seconds after which one who waits looks: Python calls no handler for a signal that comes just before a wait.
STEP = 1.0


class Stop:
    """Like a threading.Event, for one thread that waits.

    The handler of a signal that interrupts an Event's wait() may have to wait, in set(), for the
    lock that its own thread holds.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Whether it was set before, or within so many *seconds*."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=min(left, STEP))
        return self._is_set
