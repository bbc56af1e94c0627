"""The way of every statement to the database: retries, reconnection, errors with names."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import peewee

from .errors import (
    AccessRefused,
    AuditLocked,
    DatabaseUnreachable,
    DurableError,
    SchemaMismatch,
    TableMissing,
)
from .faults import Fault, fault_of, first_line
from .lanes import Lanes, Worn, in_memory

T = TypeVar("T")

LANES = 4
PAUSE = 0.05  # seconds before a statement is repeated, doubled each time, with jitter

# How often a statement is repeated after each fault.
REPETITIONS = {Fault.CONTENTION: 5, Fault.LOCKED: 5}
RESERVED_REPETITIONS = {Fault.CONTENTION: 1}

OF_THE_TABLE = {Fault.NO_TABLE, Fault.NO_COLUMN, Fault.REFUSED}


class Connections:
    """At most *size* connections to *database*, made when needed, lent one statement at a time.

    A statement that meets a lock, a deadlock or a serialization failure is
    repeated, and one that finds its connection broken is tried once more on a
    new one: so statements must be such that their repetition does no harm.
    """

    def __init__(
        self,
        database: peewee.Database,
        size: int = LANES,
        repetitions: Mapping[Fault, int] = REPETITIONS,
    ) -> None:
        self.database = database
        self._lanes = Lanes(database, size)
        self._repetitions = repetitions
        self._reserved: Connections | None = None
        self._aside: Connections | None = None

    def run(
        self,
        statement: Callable[[peewee.Database], T],
        repetitions: Mapping[Fault, int] | None = None,
    ) -> T:
        """Give *statement* a lane, and return what it returns; *repetitions*, if not as often as usual.

        Raises:
          AuditLocked: Another transaction holds the row.
          DatabaseUnreachable: The database does not answer, or (SQLite) stays locked.
          SchemaMismatch: The table is missing or lacks a column.
          AccessRefused: The user lacks a right.
        """
        repetitions = self._repetitions if repetitions is None else repetitions
        repeated = 0
        reconnected = False
        while True:
            try:
                return self._lanes.lend(statement)
            except Worn:
                self._lanes.close()
            except peewee.PeeweeException as error:
                fault = fault_of(error)
                if repeated < repetitions.get(fault, 0):
                    time.sleep(PAUSE * 2**repeated * random.uniform(0.5, 1))
                    repeated += 1
                elif fault is Fault.UNREACHABLE and not reconnected:
                    reconnected = True
                elif fault is Fault.OTHER:
                    raise
                else:
                    raise named(fault, error) from error

    def has_room(self) -> bool:
        """Whether a statement that comes now finds a connection free, most likely."""
        return self._lanes.has_room()

    def run_in(self, transaction: peewee.Database, statement: Callable[[peewee.Database], T]) -> T:
        """The same in the caller's *transaction*, once; what others are at fault for is its own to judge."""
        try:
            return statement(transaction)
        except peewee.PeeweeException as error:
            fault = fault_of(error)
            if fault in OF_THE_TABLE:
                raise named(fault, error) from error
            raise

    def close(self) -> None:
        """Close the connections that no statement is using now."""
        self._lanes.close()
        for more in (self._reserved, self._aside):
            if more is not None:
                more.close()

    def reserved(self) -> Connections:
        """One more connection, for the one thread that must wait neither behind the others nor for locks."""
        if in_memory(self.database):
            return self
        if self._reserved is None:
            self._reserved = Connections(self.database, size=1, repetitions=RESERVED_REPETITIONS)
        return self._reserved

    def aside(self) -> Connections:
        """One more connection, for what a monitor does beside its passes; who comes waits for it."""
        if in_memory(self.database):
            return self
        if self._aside is None:
            self._aside = Connections(self.database, size=1, repetitions=RESERVED_REPETITIONS)
        return self._aside


class Through:
    """In the place of Connections: every statement goes through the caller's *transaction*, once."""

    def __init__(self, database: peewee.Database, transaction: peewee.Database) -> None:
        self.database = database
        self._transaction = transaction

    def run(
        self,
        statement: Callable[[peewee.Database], T],
        repetitions: Mapping[Fault, int] | None = None,
    ) -> T:
        return statement(self._transaction)


def named(fault: Fault, error: peewee.PeeweeException) -> DurableError:
    """*error* as one of this library's, which says what to do; *fault* is not OTHER."""
    if fault is Fault.NO_TABLE:
        return TableMissing(
            "the table of audits is missing; run `dramatiq-durable schema create BROKER`"
        )
    if fault is Fault.NO_COLUMN:
        return SchemaMismatch(
            "the table of audits is of another version, for it lacks a column; "
            "run `dramatiq-durable schema migrate BROKER`"
        )
    if fault is Fault.REFUSED:
        return AccessRefused(
            f"the database refuses it ({first_line(error)}); "
            "grant its user SELECT, INSERT, UPDATE and DELETE on the table of audits, on PostgreSQL also "
            "USAGE on its sequence; who creates the table needs CREATE, on MySQL and MariaDB also INDEX"
        )
    if fault is Fault.LOCKED:
        return AuditLocked(
            "the audit is locked by another transaction; try again when that has ended"
        )
    return DatabaseUnreachable(
        f"the database of audits does not answer ({first_line(error)}); "
        "check that it runs, and its address and password"
    )
