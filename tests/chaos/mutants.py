"""Broken transitions, each of which the checker must notice."""

from __future__ import annotations

from datetime import timedelta


def apply(name: str) -> None:
    """Break this process's store; the empty name breaks nothing."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
