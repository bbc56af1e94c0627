"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.01  # seconds


def eventually(condition: Callable[[], T], timeout: float = 30, message: str = "") -> T:
    """Poll *condition* for at most *timeout* seconds, until it is truthy, and return its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{message or 'the condition'}: still {value!r} after {timeout} s")
        time.sleep(PAUSE)
