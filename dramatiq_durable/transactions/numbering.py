"""For asyncpg, which numbers its parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Any


class Numbering:
    """A connection that takes ``%s`` for a parameter, around one that takes ``$1``, ``$2`` and so on."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def cursor(self) -> Any:
        return _Cursor(self._connection.cursor())


class _Cursor:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        numbers = count(1)
        numbered = re.sub("%s", lambda _: f"${next(numbers)}", statement)
        return self._cursor.execute(numbered, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
