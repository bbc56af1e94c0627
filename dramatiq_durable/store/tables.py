"""A table as this version wants it, and the statements that make it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from ..connections import Connections
from ..errors import DurableError
from ..lanes import plain_of

_MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"

# MySQL takes it for a comment, MariaDB for what it says.
_MARIADB_IF_NOT_EXISTS = "/*M! IF NOT EXISTS */"


@dataclass(frozen=True)
class Index:
    """An index as it is wanted.

    *only* names a column that is not NULL in the rows that it holds, where the database can do
    that; *nulls_last* is for those where it cannot.  *declared* is Peewee's, of a column that the
    application has added; if it has no *columns* either, because it is of expressions or of some
    rows, it is known by its name alone.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    only: str | None = None
    nulls_last: bool = False
    declared: peewee.Index | None = None

    @property
    def is_ours(self) -> bool:
        return self.declared is None


class Table:
    """The table of *model*, whose indexes are *indexes* and those that a subclass declares."""

    def __init__(self, model: Any, connections: Connections, indexes: Sequence[Index]) -> None:
        self.model = model
        self.connections = connections
        self.database: Any = plain_of(connections.database)
        self.name: str = model._meta.table_name
        self.schema: str | None = model._meta.schema
        self.fields: dict[str, Any] = {f.column_name: f for f in model._meta.sorted_fields}
        self.indexes = (*indexes, *self._declared(indexes))

    def ddl(self) -> list[str]:
        """The statements that create the table and its indexes, for migrations of your own."""
        return [
            self.create_statement(),
            *(self.index_statement(index, safe=True) for index in self.indexes),
        ]

    def create(self) -> None:
        """Create the table and its indexes where they are missing."""
        self.connections.run(self._create)

    def execute(self, lane: peewee.Database, sql: str) -> None:
        """Execute what has no parameters."""
        # Peewee gives the drivers an empty list of them, so that they look for places in the text.
        is_sqlite = not self.is_postgres and not self.is_mysql
        lane.execute_sql(sql if is_sqlite else sql.replace("%", "%%"))

    def _create(self, lane: peewee.Database) -> None:
        def table_there() -> bool:
            return bool(lane.table_exists(self.name, self.schema))

        def index_there(name: str) -> bool:
            return name in {index.name for index in lane.get_indexes(self.name, self.schema)}

        self._execute_unless(table_there, lane, self.create_statement())
        for index in self.indexes:
            there = functools.partial(index_there, index.name)
            self._execute_unless(there, lane, self.index_statement(index))

    def _execute_unless(
        self, there: Callable[[], bool], lane: peewee.Database, statement: str
    ) -> None:
        if there():
            return
        try:
            self.execute(lane, statement)
        except peewee.PeeweeException as error:
            # Somebody else may have created it in the same moment.
            if there():
                return
            if isinstance(error, peewee.IntegrityError):
                raise not_unique(statement) from None
            raise

    def create_statement(self) -> str:
        context = self._manager()._create_table(safe=True)
        if self.is_mysql and self.model._meta.table_settings is None:
            context.literal(f" {_MYSQL_TABLE}")
        return self.rendered(context)

    def index_statement(
        self,
        index: Index,
        name: str | None = None,
        *,
        safe: bool = False,
        concurrently: bool = False,
    ) -> str:
        """What creates *index*, under another *name* if there is one."""
        if index.declared is not None:
            declared = index.declared.safe(safe and self.database.safe_create_index)
            sql = self.rendered(peewee.ValueLiterals(declared))
            return sql.replace("INDEX ", "INDEX CONCURRENTLY ", 1) if concurrently else sql
        unless = (_MARIADB_IF_NOT_EXISTS if self.is_mysql else "IF NOT EXISTS") if safe else ""
        words = (
            "CREATE", "UNIQUE" if index.unique else "", "INDEX",
            "CONCURRENTLY" if concurrently else "", unless,
            *self._placed(name or index.name), self.columns_of(index),
        )  # fmt: skip
        condition = self.predicate_of(index)
        return " ".join(filter(None, words)) + (f" WHERE ({condition})" if condition else "")

    def columns_of(self, index: Index) -> str:
        order = " DESC" if index.nulls_last and self.is_mysql else ""
        return f"({', '.join(self.identifier(column) + order for column in index.columns)})"

    def predicate_of(self, index: Index) -> str | None:
        """Which rows *index* has; None where that is all."""
        if index.only is None or self.is_mysql:
            return None
        return f"{self.identifier(index.only)} IS NOT NULL"

    def add_column_statement(self, field: Any) -> str | None:
        """What adds the column of *field*; None where only the application can say with which values."""
        # What a foreign key refers to, and how, is for a migration of the application's.
        if field.primary_key or isinstance(field, peewee.ForeignKeyField):
            return None
        column = self.rendered(field.ddl(self._manager()._create_context()))
        constraints = map(self.rendered, field.constraints or ())
        if not (field.null or any("DEFAULT" in each.upper() for each in constraints)):
            default = _literal(field)
            if default is None:
                return None
            # It stays: older workers, which do not know the column, insert rows meanwhile.
            column += f" DEFAULT {default}"
        return f"ALTER TABLE {self.quoted()} ADD COLUMN {column}"

    @property
    def is_mysql(self) -> bool:
        return isinstance(self.database, peewee.MySQLDatabase)

    @property
    def is_postgres(self) -> bool:
        return isinstance(self.database, peewee.PostgresqlDatabase)

    def quoted(self, *names: str) -> str:
        """The table, or what is beside it under *names*, in its schema."""
        parts = (self.schema, *(names or (self.name,)))
        return self.identifier(*filter(None, parts))

    def identifier(self, *names: str) -> str:
        return self.rendered(peewee.Entity(*names))

    def rendered(self, query: Any) -> str:
        if not isinstance(query, peewee.Context):
            query = self.database.get_sql_context(scope=peewee.SCOPE_VALUES).sql(query)
        sql, params = query.query()
        assert not params
        return str(sql)

    def _placed(self, index: str) -> tuple[str, str, str]:
        if isinstance(self.database, peewee.SqliteDatabase):
            # There it is the index that is said to be in a schema, and its table is in the same.
            return self.quoted(index), "ON", self.identifier(self.name)
        return self.identifier(index), "ON", self.quoted()

    def _manager(self) -> Any:
        return peewee.SchemaManager(self.model, self.database)

    def _declared(self, ours: Sequence[Index]) -> list[Index]:
        """The indexes of the columns that a subclass has added, and those of its Meta."""
        known = {(index.columns, index.unique) for index in ours}
        declared = self.model._meta.fields_to_index()
        found = [_declared(index) for index in declared if isinstance(index, peewee.Index)]
        return [index for index in found if (index.columns, index.unique) not in known]


def _declared(index: Any) -> Index:
    parts = index._expressions
    is_plain = index._where is None and all(isinstance(part, peewee.Field) for part in parts)
    columns = tuple(part.column_name for part in parts) if is_plain else ()
    return Index(index._name, columns, bool(index._unique), declared=index)


def _literal(field: Any) -> str | None:
    """The default of *field* as SQL; None when there is none that is the same for all rows."""
    if field.default is None or callable(field.default):
        return None
    value = field.db_value(field.default)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str) and "\\" not in value:
        return "'" + value.replace("'", "''") + "'"
    return None


def not_unique(statement: str) -> DurableError:
    """*statement* met rows that are alike; what the driver says names their values."""
    return DurableError(
        f"rows have the same value where there shall be one of each, so this cannot be done: {statement}; "
        "change the rows, or do not declare the column unique"
    )
