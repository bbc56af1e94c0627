"""How a loop is told to end: by a flag that ends its wait, and that a signal handler may raise."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Seconds after which one who waits looks: Python calls no handler for a signal that comes just before a wait.
STEP = 1.0


class Stop:
    """Like a threading.Event, for one thread that waits.

    The handler of a signal that interrupts an Event's wait() may have to wait, in set(), for the
    lock that its own thread holds.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wake = threading.Lock()
        self._wake.acquire()

    def set(self) -> None:
        self._is_set = True
        with contextlib.suppress(RuntimeError):  # it was set before
            self._wake.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Whether it was set before, or within so many *seconds*."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            self._wake.acquire(timeout=min(left, STEP))
        return self._is_set


@contextlib.contextmanager
def at_signals(stop: Callable[[], None]) -> Iterator[None]:
    """In the main thread, have TERM and INT call *stop*, and get to their own handlers when the block has ended.

    So it is with HUP where that is handled as TERM is.  What is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: dict[int, None] = {}

    def note(signum: int, frame: Any) -> None:
        came[signum] = None
        stop()

    handlers = _own_handlers()
    try:
        for signum in handlers:
            signal.signal(signum, note)
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        with (
            contextlib.ExitStack() as stack
        ):  # a handler that raises keeps none of the others from its signal
            for signum in came:
                stack.callback(signal.raise_signal, signum)


def _own_handlers() -> dict[int, Any]:
    """What the signals that end a process do here."""
    handlers = {
        each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    if handlers[signal.SIGHUP] != handlers[signal.SIGTERM]:
        del handlers[signal.SIGHUP]  # it may ask for the configuration to be read again
    # What is None was not installed by Python, and could not be put back.
    return {n: each for n, each in handlers.items() if each not in (signal.SIG_IGN, None)}
