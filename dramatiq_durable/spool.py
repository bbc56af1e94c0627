"""A sequence of any length that takes little memory."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Generic, TypeVar

T = TypeVar("T")

#: Bytes that are kept in memory, about.
IN_MEMORY = 32 * 2**20


class Spool(Generic[T]):
    """Keeps what is appended: in memory as far as it fits, then in a temporary file that only this process can open."""

    def __init__(self, in_memory: float = IN_MEMORY) -> None:
        self._room = in_memory
        self._first: list[T] = []
        self._file: IO[bytes] | None = None
        self._length = 0

    def append(self, item: T, size: int) -> None:
        """*size* is about how many bytes *item* takes."""
        self._length += 1
        self._room -= size
        if self._file is None and self._room >= 0:
            self._first.append(item)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the spool
            weakref.finalize(self, self._file.close)
        pickle.dump(item, self._file, pickle.HIGHEST_PROTOCOL)

    def __iter__(self) -> Iterator[T]:
        """From the first to the last; one iteration at a time, with nothing appended meanwhile."""
        yield from self._first
        if self._file is not None:
            self._file.seek(0)
            for _ in range(self._length - len(self._first)):
                yield pickle.load(self._file)  # noqa: S301 - this process has written it
