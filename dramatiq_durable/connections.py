"""The way of every statement to the database: retries, reconnection, errors with names."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import peewee

from .errors import AuditLocked, DatabaseUnreachable, DurableError, SchemaMismatch, TableMissing
from .faults import REPEATED, Fault, fault_of
from .lanes import Lanes, in_memory

T = TypeVar("T")

LANES = 4
CONTENTION_RETRIES = 5
CONTENTION_PAUSE = 0.05  # seconds, doubled each time, with jitter


class Connections:
    """At most *size* connections to *database*, made when needed, lent one statement at a time.

    A statement that meets a lock, a deadlock or a serialization failure is
    repeated, and one that finds its connection broken is tried once more on a
    new one: so statements must be such that their repetition does no harm.
    """

    def __init__(
        self, database: peewee.Database, size: int = LANES, retries: int = CONTENTION_RETRIES
    ) -> None:
        self.database = database
        self._lanes = Lanes(database, size)
        self._retries = retries
        self._reserved: Connections | None = None

    def run(self, statement: Callable[[peewee.Database], T]) -> T:
        """Give *statement* a lane, and return what it returns.

        Raises:
          AuditLocked: Another transaction holds the row.
          DatabaseUnreachable: The database does not answer, or (SQLite) stays locked.
          SchemaMismatch: The table is missing or lacks a column.
        """
        contended = 0
        reconnected = False
        while True:
            try:
                return self._lanes.lend(statement)
            except peewee.PeeweeException as error:
                fault = fault_of(error)
                if fault in REPEATED and contended < self._retries:
                    time.sleep(CONTENTION_PAUSE * 2**contended * random.uniform(0.5, 1))
                    contended += 1
                elif fault is Fault.UNREACHABLE and not reconnected:
                    self._lanes.close()
                    reconnected = True
                elif fault is Fault.OTHER:
                    raise
                else:
                    raise _named(fault, error) from error

    def close(self) -> None:
        """Close the connections that no statement is using now."""
        self._lanes.close()
        if self._reserved is not None:
            self._reserved.close()

    def reserved(self) -> Connections:
        """One more connection, for the one thread that must wait neither behind the others nor for locks."""
        if in_memory(self.database):
            return self
        if self._reserved is None:
            self._reserved = Connections(self.database, size=1, retries=1)
        return self._reserved


def _named(fault: Fault, error: peewee.PeeweeException) -> DurableError:
    if fault is Fault.NO_TABLE:
        return TableMissing(
            "the table of audits is missing; run `dramatiq-durable schema create BROKER`"
        )
    if fault is Fault.NO_COLUMN:
        return SchemaMismatch(
            "the table of audits is of another version, for it lacks a column; the changelog says how "
            "to change it, and `dramatiq-durable schema sql BROKER` how it must be"
        )
    if fault is Fault.LOCKED:
        return AuditLocked("the audit is locked by another transaction")
    return DatabaseUnreachable(
        f"the database of audits does not answer ({type(error).__name__}); "
        "check that it runs and that its address is right"
    )
