"""Statements that Peewee renders once, and that run with other values each time: rendering costs more than running."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import peewee

from ..models import Audit

#: By table: what was rendered, by all that it depends on.
_rendered: WeakKeyDictionary[type[Audit], dict[Hashable, Rendered]] = WeakKeyDictionary()


class _Name(str):
    """Stands among the parameters for the value of this name."""

    __slots__ = ()


class Rendered:
    """A statement for values that are given by name."""

    def __init__(self, database: peewee.Database, query: Any) -> None:
        context: Any = database.get_sql_context()
        self._sql, self._parameters = context.sql(query).query()

    def run(self, database: Any, values: Mapping[str, Any]) -> int:
        """Returns how many rows it has changed."""
        changed: int = database.rows_affected(self._execute(database, values))
        return changed

    def rows(self, database: Any, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Returns what it has selected, or returned, in the terms of the database."""
        return list(self._execute(database, values).fetchall())

    def _execute(self, database: Any, values: Mapping[str, Any]) -> Any:
        parameters = [values[p] if type(p) is _Name else p for p in self._parameters]
        return database.execute_sql(self._sql, parameters)


def parameter(name: str) -> Any:
    """Stands in a query for a value that is given when it runs, in the terms of the database."""
    return peewee.Value(_Name(name), converter=False)


def arrays(types: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    """Rows for a FROM on PostgreSQL, whose driver is slow with many parameters, and their columns by name.

    Each column is one parameter, whose value is a list; *types* says of what.
    """
    lists = [parameter(name).cast(f"{kind}[]") for name, kind in types.items()]
    rows = peewee.NodeList((peewee.fn.unnest(*lists), peewee.SQL(f"AS one({', '.join(types)})")))
    return rows, {name: peewee.SQL(f"one.{name}") for name in types}


def listed(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """The values for :func:`arrays`."""
    return {name: [row[name] for row in rows] for name in names}


def rendered_for(audit: type[Audit]) -> dict[Hashable, Rendered]:
    """What was rendered for a table so far."""
    return _rendered.setdefault(audit, {})


def padded(items: Sequence[Any], longest: int, filler: Any = None) -> list[Any]:
    """*items* and as many of *filler*, or of the last one, that there are few lengths to render: powers of two, *longest*."""
    length = min(1 << (len(items) - 1).bit_length(), longest)
    repeated = items[-1] if filler is None else filler
    return [*items, *[repeated] * (length - len(items))]
