"""The table: its DDL, and whether it is there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import peewee

from ..errors import SchemaMismatch
from ..lanes import plain_of
from .base import Base

_MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"


class Schema(Base):
    def create_tables(self) -> None:
        """Create the table and its indexes where they are missing."""
        self.connections.run(self._create)

    def ddl(self) -> list[str]:
        """The statements that create the table and its indexes, for migrations of your own."""
        return [self._render(query) for query in (self._table(), *self._indexes().values())]

    def check_table(self) -> None:
        """Raise SchemaMismatch when the table is missing or lacks a column that we write."""
        try:
            self._execute(self.audit.select().where(peewee.SQL("0 = 1")))
        except SchemaMismatch as error:
            # Nobody can do more with the driver's words than with ours, and a worker that ends prints both.
            raise error.with_traceback(None) from None

    def _create(self, lane: peewee.Database) -> None:
        schema = self.audit._meta.schema

        def table_there() -> bool:
            return bool(lane.table_exists(self._name(), schema))

        def index_there(name: str) -> bool:
            return name in {index.name for index in lane.get_indexes(self._name(), schema)}

        _execute_unless(table_there, lane, self._render(self._table()))
        for name, index in self._indexes().items():
            _execute_unless(functools.partial(index_there, name), lane, self._render(index))

    def _name(self) -> str:
        name: str = self.audit._meta.table_name
        return name

    def _table(self) -> Any:
        manager: Any = peewee.SchemaManager(self.audit, plain_of(self.database))
        context = manager._create_table(safe=True)
        if (
            isinstance(plain_of(self.database), peewee.MySQLDatabase)
            and self.audit._meta.table_settings is None
        ):
            context.literal(f" {_MYSQL_TABLE}")
        return context

    def _indexes(self) -> dict[str, Any]:
        audit, name = self.audit, self._name()
        # Finished audits are not in the first, open ones not in the second, where the database can do that.
        plans = {
            f"{name}_message_id": ((audit.message_id,), True, None),
            # With the id a monitor's batches come in order without a sort, whatever is thought to be due.
            f"{name}_due": ((audit.namespace, audit.due_at, audit.id), False, audit.due_at),
            f"{name}_finished": (
                (audit.namespace, audit.state, audit.finished_at),
                False,
                audit.finished_at,
            ),
        }
        partial = not isinstance(plain_of(self.database), peewee.MySQLDatabase)
        indexes = {}
        for index_name, (fields, unique, only) in plans.items():
            index = peewee.Index(index_name, audit._meta.table, fields, unique=unique, safe=False)
            if only is not None and partial:
                index = index.where(only.is_null(False))
            indexes[index_name] = index
        return indexes

    def _render(self, query: Any) -> str:
        if not isinstance(query, peewee.Context):
            query = plain_of(self.database).get_sql_context(scope=peewee.SCOPE_VALUES).sql(query)
        sql, params = query.query()
        assert not params
        return str(sql)


def _execute_unless(there: Callable[[], bool], lane: peewee.Database, statement: str) -> None:
    if there():
        return
    try:
        lane.execute_sql(statement)
    except peewee.PeeweeException:
        # Somebody else may have created it in the same moment.
        if not there():
            raise
