"""LeaseLost strikes an actor's body, and nothing after it."""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dramatiq.threading import is_gevent_active, raise_thread_exception

from .errors import LeaseLost

# Here, for an interrupt that strikes during an import leaves a lock of Python's taken for ever.
_gevent: Any = importlib.import_module("gevent") if is_gevent_active() else None


class Fence:
    """Where an exception from another thread may strike: inside :meth:`body`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._target: Any = None
        self._struck = False

    @contextmanager
    def body(self) -> Iterator[None]:
        """The only place where :meth:`strike` has an effect."""
        target = _current()
        try:
            self._target = target
            yield
        finally:
            self.close()
            if self._struck:
                _take_back(target)

    def strike(self) -> None:
        """Raise LeaseLost in the body, once."""
        with self._lock:
            if self._target is not None and not self._struck:
                self._struck = True
                _raise_in(self._target)

    def close(self) -> None:
        with self._lock:
            self._target = None


def _current() -> Any:
    return threading.get_ident() if _gevent is None else _gevent.getcurrent()


def _raise_in(target: Any) -> None:
    if isinstance(target, int):
        raise_thread_exception(target, LeaseLost)
    else:
        target.kill(LeaseLost, block=False)


def _take_back(target: Any) -> None:
    """Have an exception that the body has not met by its end strike nothing else."""
    try:
        if isinstance(target, int):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object())
        else:
            _gevent.sleep(0)  # it comes now, or has come
    except LeaseLost:
        return
