"""SQLite in memory, shared by the connections of all processes, whose every statement the world sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

import peewee

from .scheduler import Process, current_task

JULIAN_1970, DAY = 2_440_587.5, 86_400


class Observer(Protocol):
    def statement(
        self, connection: sqlite3.Connection, execute: Callable[[], Any], sql: str, params: Any
    ) -> Any: ...


class DatabaseServer:
    """The database *name*, with the clock *now*, for as long as this object is open.

    *ddl* makes its tables.  *observer* is asked to execute each statement of a simulated thread.
    """

    def __init__(
        self, name: str, ddl: list[str], observer: Observer, now: Callable[[], float]
    ) -> None:
        self.observer = observer
        self._uri = f"file:/{name}?vfs=memdb"
        self._now = now
        self._connections: dict[Process, list[sqlite3.Connection]] = {}
        self.own = sqlite3.connect(
            self._uri, uri=True, isolation_level=None, check_same_thread=False
        )
        for statement in ddl:
            self.own.execute(statement)

    def database(self, process: Process) -> peewee.SqliteDatabase:
        """What an application of *process* gives to the middleware."""
        connections = self._connections.setdefault(process, [])
        observer = self.observer

        class Connection(sqlite3.Connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                connections.append(self)

            def cursor(self, factory: Any = None) -> Any:
                return super().cursor(Cursor)

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, params: Any = ()) -> Any:
                execute = super().execute
                if current_task() is None or sql.startswith("PRAGMA"):
                    return execute(sql, params)
                return observer.statement(
                    self.connection, lambda: execute(sql, params), sql, params
                )

        database = peewee.SqliteDatabase(
            self._uri,
            pragmas={"journal_mode": "memory"},
            timeout=0,  # a lock is waited for in the simulation's time, not in ours
            uri=True,
            factory=Connection,
            check_same_thread=False,
        )
        database.register_function(lambda *_: JULIAN_1970 + self._now() / DAY, "julianday", -1)
        return database

    def crash(self, process: Process) -> None:
        """Roll back and close what a process leaves behind."""
        for connection in self._connections.pop(process, []):
            connection.close()

    def close(self) -> None:
        for process in list(self._connections):
            self.crash(process)
        self.own.close()
