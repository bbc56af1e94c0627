"""Bringing a table up to this version, by one process at a time.

The lock is one of the database's own: a transaction that writes (SQLite), GET_LOCK (MySQL, MariaDB), an
advisory lock (PostgreSQL).  The latter is asked for again and again, never waited for, because
CREATE INDEX CONCURRENTLY waits for all who run a statement, and so for those who wait for it to end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import peewee
from dramatiq.logging import get_logger

from ..connections import named
from ..errors import AccessRefused, DatabaseUnreachable, DurableError, TableLocked
from ..faults import REPEATED, Fault, fault_of, first_line
from ..lanes import LOCK_TIMEOUT, patient
from ..poolers import limit_waits_of
from .differences import Difference, Statement, differences_on, leftover
from .tables import Table, not_unique

Tell = Callable[[str], None]

#: Seconds in which those who queued up behind a statement of ours, which waited, have their turn.
PAUSE = 2.0

_KEY = int.from_bytes(hashlib.sha256(b"dramatiq-durable schema").digest()[:8], "big", signed=True)

_logger = get_logger(__name__)


def migrate(table: Table, wait: timedelta, tell: Tell) -> list[Difference]:
    """Mend in what *table* differs; returns what is left, which is not for us to mend.

    Parameters:
      wait: How long to wait for another migration, and for transactions that use the table.
      tell: Is given each statement before it is executed.

    Raises:
      TableLocked: That was not long enough.
      AccessRefused: The user lacks a right.
    """
    end = time.monotonic() + wait.total_seconds()
    if not table.is_postgres and not table.is_mysql:
        return _on_sqlite(table, end, tell)
    locked = _locked_on_postgres if table.is_postgres else _locked_on_mysql
    try:
        with locked(table, end) as lane:
            return _mend(table, lane, end, tell)
    except peewee.PeeweeException as error:
        fault = fault_of(error)
        if fault is Fault.OTHER:
            raise
        raise _explained(table, fault, error) from error


def _on_sqlite(table: Table, end: float, tell: Tell) -> list[Difference]:
    def mend(lane: peewee.Database) -> list[Difference]:
        with lane.atomic("IMMEDIATE"):
            return _mend(table, lane, end, tell)

    while True:
        try:
            return table.connections.run(mend, {})
        except DatabaseUnreachable as error:
            cause = error.__cause__
            if not isinstance(cause, peewee.PeeweeException) or fault_of(cause) not in REPEATED:
                raise
            if time.monotonic() > end:
                raise _explained(table, fault_of(cause), cause) from cause


def _mend(table: Table, lane: peewee.Database, end: float, tell: Tell) -> list[Difference]:
    for difference in differences_on(lane, table):
        for statement in difference.statements:
            tell(statement.sql)
            try:
                _execute(table, lane, statement, end)
            except peewee.IntegrityError:
                raise not_unique(statement.sql) from None
            except peewee.PeeweeException as error:
                # Who creates the tables when the application starts takes no lock.
                if fault_of(error) is Fault.OTHER and difference not in differences_on(lane, table):
                    break
                raise
    return differences_on(lane, table)


def _execute(table: Table, lane: peewee.Database, statement: Statement, end: float) -> None:
    while True:
        try:
            _execute_once(table, lane, statement, end)
            return
        except peewee.PeeweeException as error:
            fault = fault_of(error)
            if fault is not Fault.UNREACHABLE:
                _clear_up(table, lane, statement)
            if fault not in REPEATED or time.monotonic() + PAUSE > end:
                raise
        time.sleep(PAUSE)


def _clear_up(table: Table, lane: peewee.Database, statement: Statement) -> None:
    drop = leftover(lane, table, statement)
    if drop is None:
        return
    try:
        table.execute(lane, drop)
    except peewee.PeeweeException as error:
        # What has failed before it says more.
        _logger.warning(
            "The index %s is left half-built (%s); the next migration drops it.",
            statement.builds,
            first_line(error),
        )


def _execute_once(table: Table, lane: peewee.Database, statement: Statement, end: float) -> None:
    if not table.is_postgres:
        table.execute(lane, statement.sql)
        return
    if statement.alone:
        # It waits for all who use the table, and nobody waits for it.
        limit_waits_of(lane, max(end - time.monotonic(), LOCK_TIMEOUT))
        table.execute(lane, statement.sql)
        return
    # Whoever wants to use the table queues up behind a statement that waits for it.
    with lane.atomic():
        lane.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
        table.execute(lane, statement.sql)


@contextmanager
def _locked_on_postgres(table: Table, end: float) -> Iterator[peewee.Database]:
    # Of a transaction and on a connection of its own, for a pooler may lend the next statement another one.  It
    # keeps no snapshot, so that the building of an index does not wait for it.
    with patient(table.connections.database) as holder:
        holder.execute_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        holder.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        _wait_for(holder, f"SELECT pg_try_advisory_xact_lock({_KEY})", end)
        with patient(table.connections.database) as lane:
            yield lane


@contextmanager
def _locked_on_mysql(table: Table, end: float) -> Iterator[peewee.Database]:
    with patient(table.connections.database) as lane:
        lane.execute_sql(f"SET SESSION lock_wait_timeout = {LOCK_TIMEOUT}")
        # The names of these locks are the server's, not the database's, and must be short.
        _wait_for(lane, "SELECT GET_LOCK(SHA1(CONCAT('dramatiq-durable ', DATABASE())), 0)", end)
        yield lane


def _wait_for(lane: peewee.Database, attempt: str, end: float) -> None:
    told = False
    while not lane.execute_sql(attempt).fetchone()[0]:
        if not told:
            _logger.info("Another migration of this database runs; this one waits for it.")
            told = True
        if time.monotonic() > end:
            raise TableLocked(
                "another migration of this database has run all the time; try again when it has ended"
            )
        time.sleep(PAUSE / 4)


def _explained(table: Table, fault: Fault, error: peewee.PeeweeException) -> DurableError:
    if fault is Fault.REFUSED:
        return AccessRefused(
            f"the database refuses it ({first_line(error)}); on PostgreSQL only the owner of the table may change it, "
            "with CREATE on its schema, on MySQL and MariaDB it needs ALTER, CREATE, INDEX and SELECT"
        )
    if fault in REPEATED:
        return TableLocked(
            f"{table.name} was in use by long transactions all the time; what others would have waited for was "
            f"tried for {LOCK_TIMEOUT} s at once: end them, and run it again"
        )
    return named(fault, error)
