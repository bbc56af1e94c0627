"""LeaseLost strikes an actor's body, and nothing after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dramatiq.threading import is_gevent_active, raise_thread_exception

from .errors import LeaseLost

# How long an exception raised asynchronously may take to arrive; a body that
# is done executes bytecode all the time, so that it comes at once.
DELIVERY_SECONDS = 5.0


class Fence:
    """Where an exception from another thread may strike: inside :meth:`body`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._target: Any = None
        self._struck = False

    @contextmanager
    def body(self) -> Iterator[None]:
        """The only place where :meth:`strike` has an effect."""
        delivered = False
        try:
            self._target = _current()
            yield
        except LeaseLost:
            delivered = True
            raise
        finally:
            self.close()
            if self._struck and not delivered:
                self._wait_for_delivery()

    def strike(self) -> None:
        """Raise LeaseLost in the body, once."""
        with self._lock:
            if self._target is not None and not self._struck:
                self._struck = True
                _raise_in(self._target)

    def close(self) -> None:
        with self._lock:
            self._target = None

    def _wait_for_delivery(self) -> None:
        # The body may have met the exception as another one, or swallowed it;
        # then it never comes, and nothing is left that it could strike.
        deadline = time.monotonic() + DELIVERY_SECONDS
        try:
            while time.monotonic() < deadline:
                time.sleep(0.001)
        except LeaseLost:
            return


def _current() -> Any:
    if is_gevent_active():
        import gevent

        return gevent.getcurrent()
    return threading.get_ident()


def _raise_in(target: Any) -> None:
    if isinstance(target, int):
        raise_thread_exception(target, LeaseLost)
    else:
        target.kill(LeaseLost, block=False)
