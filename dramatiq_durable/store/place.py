"""Where statements arrive: an audit in another database than the monitor's would be none."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any
from urllib.parse import unquote, urlsplit

import peewee

from ..lanes import plain_of
from .base import Base


class Place(Base):
    _mine: Hashable = None

    def is_reached_by(self, borrowed: peewee.Database) -> bool:
        """Whether what is written through *borrowed* is in this table.

        On MySQL and MariaDB only the name of the database tells.
        """
        there = self._reached(borrowed)
        if there != self._mine:
            # Meanwhile it may have been created anew.
            self._mine = self._own()
        return there == self._mine

    def _own(self) -> Hashable:
        database: Any = plain_of(self.database)
        if not isinstance(database, peewee.SqliteDatabase):
            return self.connections.run(self._reached)
        # Our first connection would have to wait for the application's transaction, to switch to WAL.
        name = os.fspath(database.database)
        return os.path.realpath(unquote(urlsplit(name).path) if name.startswith("file:") else name)

    def _reached(self, database: Any) -> Hashable:
        if isinstance(database, peewee.SqliteDatabase):
            files = database.execute_sql("PRAGMA database_list").fetchall()
            return next(
                os.path.realpath(file) if file else "" for _, name, file in files if name == "main"
            )
        if isinstance(database, peewee.PostgresqlDatabase):
            table, _ = database.get_sql_context().sql(self.audit._meta.entity).query()
            sql = "SELECT current_database(), CAST(to_regclass(%s) AS oid)"
            return tuple(database.execute_sql(sql, (table,)).fetchone())
        schema = (self.audit._meta.schema,)
        return tuple(database.execute_sql("SELECT COALESCE(%s, DATABASE())", schema).fetchone())
