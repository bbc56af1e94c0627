"""Progress for people: one line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

EVERY = 3.0  # seconds between two lines when there is no terminal
BAR = 20  # characters


class Screen:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._next = 0.0

    def event(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        print(f"{self._elapsed():5.1f} s  {text}", flush=True)

    def progress(self, text: str) -> None:
        """A line that the next one replaces."""
        if self._terminal:
            self._clear()
            print(f"{self._elapsed():5.1f} s  {text}", end="", flush=True)
        elif self._elapsed() >= self._next:
            self._next = self._elapsed() + EVERY
            self.event(text)

    def _clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def bar(name: str, done: int, total: int) -> str:
    return f"{name} {'#' * (BAR * done // total):.<{BAR}} {done:3}/{total}"


def table(columns: dict[str, dict[str, object]]) -> str:
    """Rows of the inner names, a column for each outer one."""
    rows = [["", *columns]]
    rows += [
        [name, *(str(column[name]) for column in columns.values())]
        for name in next(iter(columns.values()))
    ]
    return "\n".join(
        f"{name:<12}" + "".join(f"{cell:>20}" for cell in cells) for name, *cells in rows
    )
