"""SQLite in memory, shared by the connections of all processes, whose every statement the world sees."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import peewee

from dramatiq_durable import Audit, DurableMiddleware

from .scheduler import START, Process, current_task

JULIAN_1970, DAY = 2_440_587.5, 86_400

_numbers = itertools.count(1)


class Connection(sqlite3.Connection):
    """A connection of a simulated process, to the database of its simulation."""

    def __init__(self, _: str, *args: Any, **kwargs: Any) -> None:
        task = current_task()
        assert task is not None
        process: Any = task.process
        self.process = process
        self.server: DatabaseServer = process.world.database
        super().__init__(self.server.uri, *args, **kwargs)
        self.server.connections.setdefault(process, []).append(self)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return super().cursor(Cursor)

    def rollback(self) -> None:
        self._check()
        super().rollback()

    def _check(self) -> None:
        """That of a crashed process is closed, and who unwinds there is to see nothing but that."""
        task = current_task()
        if task is not None:
            task.scheduler.check()

    def close(self) -> None:
        mine = self.server.connections.get(self.process, [])
        if self in mine:
            mine.remove(self)
        super().close()


class Cursor(sqlite3.Cursor):
    def execute(self, sql: str, params: Any = ()) -> Any:
        execute = super().execute
        if sql.startswith("PRAGMA"):
            return execute(sql, params)
        connection: Any = self.connection
        return connection.process.world.statement(
            connection, lambda: execute(sql, params), sql, params
        )


def _julianday(*_: Any) -> float:
    task = current_task()
    assert task is not None
    return JULIAN_1970 + (START + task.scheduler.now) / DAY


#: What each process gives to its middleware, which makes connections of its own like it.
database = peewee.SqliteDatabase(
    "simulation",
    pragmas={"journal_mode": "memory"},
    timeout=0,  # a lock is waited for in the simulation's time, not in ours
    uri=True,
    factory=Connection,
    check_same_thread=False,
)
database.register_function(_julianday, "julianday", -1)


class SimulatedAudit(Audit):
    """Made once, for it takes Peewee longer than all else of a process."""

    class Meta:
        database = database


_DDL = DurableMiddleware(database, audit_model=SimulatedAudit).store.ddl()


class DatabaseServer:
    """The database, for as long as this object is open; *ddl* makes tables beside the audits'."""

    def __init__(self, ddl: str) -> None:
        # A name of its own, for SQLite keeps a database while the garbage collector keeps a cursor.
        self.uri = f"file:/simulation-{next(_numbers)}?vfs=memdb"
        self.connections: dict[Process, list[Connection]] = {}
        #: Not of any process; it sees what is committed.
        self.own = sqlite3.connect(
            self.uri, uri=True, isolation_level=None, check_same_thread=False
        )
        for statement in (*_DDL, ddl):
            self.own.execute(statement)

    def is_locked_by(self, process: Process) -> bool:
        return any(each.in_transaction for each in self.connections.get(process, []))

    def crash(self, process: Process) -> None:
        """Roll back and close what a process leaves behind."""
        for connection in self.connections.pop(process, []):
            connection.close()

    def close(self) -> None:
        for process in list(self.connections):
            self.crash(process)
        self.own.close()
