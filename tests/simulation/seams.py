"""Python's clock, pauses, threads, interrupts and queues, as the threads of a simulation see them.

Everybody else's are untouched, though the same functions are replaced for all.
"""

from __future__ import annotations

import collections
import os
import queue
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import dramatiq.common

import dramatiq_durable.claimer
import dramatiq_durable.fence
import dramatiq_durable.keeper

from .scheduler import LATE, START, Task, current_task, task_of


@contextmanager
def installed() -> Iterator[None]:
    """Replace them for as long as it lasts."""
    threads = types.SimpleNamespace(**{**vars(threading), "Thread": _Thread})
    queues = types.SimpleNamespace(**{**vars(queue), "SimpleQueue": _Queue})
    replaced: list[tuple[Any, str, Any]] = [
        (time, "time", _seen(time.time, lambda task: START + task.scheduler.now)),
        (dramatiq.common, "time", _seen(time.time, lambda task: START + task.scheduler.now)),
        (time, "monotonic", _seen(time.monotonic, lambda task: task.scheduler.now)),
        (time, "sleep", _seen(time.sleep, lambda task, seconds: task.scheduler.sleep(seconds))),
        # What registers here is kept until the process ends.
        (os, "register_at_fork", lambda **hooks: None),
        (dramatiq_durable.fence, "raise_thread_exception", _interrupt),
        (dramatiq_durable.keeper, "threading", threads),
        (dramatiq_durable.claimer, "queue", queues),
        (dramatiq_durable.keeper, "queue", queues),
    ]
    patches = [mock.patch.object(*each) for each in replaced]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _seen(real: Callable[..., Any], simulated: Callable[..., Any]) -> Callable[..., Any]:
    def either(*args: Any) -> Any:
        task = current_task()
        return real(*args) if task is None else simulated(task, *args)

    return either


def _interrupt(thread: int, error: type[BaseException]) -> None:
    # CPython's would strike a thread that has just handed over its baton, and is not asleep yet.
    task = task_of(thread)
    assert task is not None
    task.interrupt = error


def _task() -> Task:
    task = current_task()
    assert task is not None
    return task


class _Thread:
    """A thread that the process of its maker starts."""

    def __init__(self, *, target: Any, args: Any, name: str, daemon: bool) -> None:
        self._run = lambda: target(*args)
        self._name = name

    def start(self) -> None:
        task = _task()
        task.scheduler.start(task.process, f"{task.process.name}/{self._name}", self._run)


class _Queue:
    """A SimpleQueue on which the scheduler waits."""

    def __init__(self) -> None:
        self._items: collections.deque[Any] = collections.deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def qsize(self) -> int:
        return len(self._items)

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def get(self, timeout: float | None = None) -> Any:
        scheduler = _task().scheduler
        end = None if timeout is None else scheduler.now + timeout + LATE
        if not self._items:
            scheduler.wait(lambda: self._items, lambda: end)
        return self.get_nowait()
