"""In what a table differs from what this version wants, and the statements that mend it.

They only add, but for indexes of this library's own, known by their names, that are no longer
wanted as they are.  What else the table has is the application's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import peewee

from ..errors import AccessRefused
from .tables import Index, Table

#: What PostgreSQL's names have at the end of an index that is to take the place of another, and how long names are there.
_SUCCESSOR, _LONGEST = "_new", 63

#: How indexes of former versions were called, after the name of their table.
_FORMER: tuple[str, ...] = ()

_INVALID = """
    SELECT i.relname FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
    WHERE t.relname = %s AND n.nspname = COALESCE(%s, current_schema()) AND NOT x.indisvalid
"""


class Statement(NamedTuple):
    """*alone*: outside of a transaction; *builds*: the index that it leaves half-built when it fails."""

    sql: str
    alone: bool = False
    builds: str | None = None


@dataclass(frozen=True)
class Difference:
    """Something of *table* that is not as it should be; without *statements* it is not for us to mend."""

    table: str
    says: str
    statements: tuple[Statement, ...] = ()


class _Found(NamedTuple):
    name: str
    columns: tuple[str, ...]
    unique: bool
    predicate: str
    valid: bool

    def is_like(self, table: Table, index: Index) -> bool:
        return (
            self.valid
            and bool(index.columns)
            and self.columns == index.columns
            and self.unique == index.unique
            and self.predicate == _plain(table.predicate_of(index) or "")
        )


def differences(table: Table) -> list[Difference]:
    """All of them, in the order in which they are to be mended.

    Raises:
      AccessRefused: The user may not even see the columns.
    """
    return table.connections.run(lambda lane: differences_on(lane, table))


def differences_on(lane: peewee.Database, table: Table) -> list[Difference]:
    """The same on a connection that the caller has."""
    if not lane.table_exists(table.name, table.schema):
        statements = tuple(Statement(sql) for sql in table.ddl())
        return [Difference(table.name, "the table is missing", statements)]
    columns = {column.name for column in lane.get_columns(table.name, table.schema)}
    if not columns:
        raise AccessRefused(f"the database's user sees no column of {table.name}; grant it SELECT")
    missing = [field for name, field in table.fields.items() if name not in columns]
    return [*(_of_column(table, field) for field in missing), *_of_indexes(table, lane)]


def leftover(lane: peewee.Database, table: Table, statement: Statement) -> str | None:
    """What drops that which *statement* has left half-built; nothing that somebody else has built meanwhile."""
    name = statement.builds
    return None if name is None or name not in _invalid(table, lane) else _drop(table, name)


def _of_column(table: Table, field: peewee.Field) -> Difference:
    says = f"the column {field.column_name} is missing"
    sql = table.add_column_statement(field)
    if sql is None:
        return Difference(
            table.name, f"{says}, and rows that are there need a value that only you know for it"
        )
    return Difference(table.name, says, (Statement(sql),))


def _of_indexes(table: Table, lane: peewee.Database) -> Iterator[Difference]:
    found = {index.name: index for index in _found(table, lane)}
    wanted = set()
    for index in table.indexes:
        there, like = found.get(index.name), _like(table, index, found.values())
        # What the application declares is its own to change; only where there is none it is made.
        if like is None and (there is None or index.is_ours or not there.valid):
            wanted.add(index.name)
            if there is not None and there.valid:
                wanted.add(_successor(index.name))
            yield Difference(table.name, _says(index, there), _mended(table, index, found))
        elif like is not None:
            wanted.add(like)
            if like == _successor(index.name):
                wanted.add(index.name)
                yield Difference(
                    table.name,
                    f"the index {like} has not taken the place of {index.name}",
                    _succeeded(table, index, there is not None),
                )
    for name in found:
        if name in _ours(table) - wanted:
            drop = Statement(_drop(table, name), alone=table.is_postgres)
            yield Difference(table.name, f"the index {name} is not wanted any more", (drop,))


def _ours(table: Table) -> set[str]:
    names = {index.name for index in table.indexes if index.is_ours}
    former = {f"{table.name}_{name}" for name in _FORMER}
    return names | former | set(map(_successor, names))


def _like(table: Table, index: Index, found: Iterable[_Found]) -> str | None:
    """The name of one that serves as well: its own if it does, that of another, at last a successor's."""
    names = [each.name for each in found if each.is_like(table, index)]
    successor = _successor(index.name)
    return min(names, key=lambda n: (n != index.name, n == successor, n), default=None)


def _says(index: Index, there: _Found | None) -> str:
    if there is None:
        return f"the index {index.name} is missing"
    if not there.valid:
        return f"the index {index.name} is being built, or somebody was stopped who did"
    return f"the index {index.name} is another than it should be"


def _mended(table: Table, index: Index, found: dict[str, _Found]) -> tuple[Statement, ...]:
    if table.is_postgres:
        return tuple(_built(table, index, found))
    if table.is_mysql and index.is_ours:
        # In one statement, so that there is always one of the two; an error, if others could not write meanwhile.
        name, unique = table.identifier(index.name), "UNIQUE " if index.unique else ""
        drop = f"DROP INDEX {name}, " if index.name in found else ""
        add = f"ADD {unique}INDEX {name} {table.columns_of(index)}"
        return (
            Statement(f"ALTER TABLE {table.quoted()} {drop}{add}, ALGORITHM=INPLACE, LOCK=NONE"),
        )
    create = Statement(table.index_statement(index))
    return (Statement(_drop(table, index.name)), create) if index.name in found else (create,)


def _built(table: Table, index: Index, found: dict[str, _Found]) -> Iterator[Statement]:
    """How PostgreSQL builds it while others write, and meanwhile keeps what is there."""
    there = found.get(index.name)
    replaced = there is not None and there.valid
    name = _successor(index.name) if replaced else index.name
    if name in found:
        yield Statement(_drop(table, name), alone=True)
    # A unique one that failed would go on to refuse rows.
    create = table.index_statement(index, name, concurrently=True)
    yield Statement(create, alone=True, builds=name)
    if replaced:
        yield from _succeeded(table, index, there_is_one=True)


def _succeeded(table: Table, index: Index, there_is_one: bool) -> tuple[Statement, ...]:
    successor, name = table.quoted(_successor(index.name)), table.identifier(index.name)
    rename = Statement(f"ALTER INDEX {successor} RENAME TO {name}")
    drop = Statement(_drop(table, index.name), alone=True)
    return (drop, rename) if there_is_one else (rename,)


def _drop(table: Table, name: str) -> str:
    if table.is_mysql:
        return f"DROP INDEX {table.identifier(name)} ON {table.quoted()}"
    concurrently = "CONCURRENTLY " if table.is_postgres else ""
    return f"DROP INDEX {concurrently}IF EXISTS {table.quoted(name)}"


def _successor(name: str) -> str:
    # PostgreSQL would cut a longer name, to that of the index itself.
    return name.encode()[: _LONGEST - len(_SUCCESSOR)].decode(errors="ignore") + _SUCCESSOR


def _invalid(table: Table, lane: peewee.Database) -> set[str]:
    if not table.is_postgres:
        return set()
    return {name for (name,) in lane.execute_sql(_INVALID, (table.name, table.schema))}


def _found(table: Table, lane: peewee.Database) -> list[_Found]:
    invalid = _invalid(table, lane)
    return [
        _Found(
            index.name,
            tuple(index.columns),
            bool(index.unique),
            _plain(re.split(r"\bWHERE\b", index.sql or "", maxsplit=1, flags=re.IGNORECASE)[1:]),
            index.name not in invalid,
        )
        for index in lane.get_indexes(table.name, table.schema)
    ]


def _plain(condition: str | list[str]) -> str:
    """A condition in the words that all databases use, without what each adds."""
    text = condition if isinstance(condition, str) else "".join(condition)
    return " ".join(re.sub(r'["`()\[\]]', " ", text).lower().split())
