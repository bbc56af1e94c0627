"""Database connections of our own, beside those of the application.

The application's code opens, closes, leaks its connections and leaves them in
transactions.  The store works on *lanes*: private twins of the Database
object, each with one connection, lent to one statement at a time.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import peewee
from dramatiq.logging import get_logger
from playhouse.pool import PooledDatabase
from playhouse.sqliteq import SqliteQueueDatabase

from .errors import DatabaseUnreachable, SchemaMismatch
from .faults import Fault, fault_of

T = TypeVar("T")

_logger = get_logger(__name__)

LANES = 4
CONTENTION_RETRIES = 5
CONTENTION_PAUSE = 0.05  # seconds, doubled each time, with jitter
LOCK_TIMEOUT = 1  # seconds that a statement of ours waits for somebody else's row lock

# A child must not even close what it shares with its parent, so it keeps it until it ends.
_inherited: list[peewee.Database] = []


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
        self._size = size
        self._retries = retries
        self._reset()
        reset = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def run(self, statement: Callable[[peewee.Database], T]) -> T:
        """Give *statement* a lane, and return what it returns.

        Raises:
          DatabaseUnreachable: The database does not answer, or stays locked.
          SchemaMismatch: The table is missing or lacks a column.
        """
        contended = 0
        reconnected = False
        while True:
            try:
                with self._lane() as lane:
                    return statement(lane)
            except peewee.PeeweeException as error:
                fault = fault_of(error)
                if fault is Fault.CONTENTION and contended < self._retries:
                    time.sleep(CONTENTION_PAUSE * 2**contended * random.uniform(0.5, 1))
                    contended += 1
                elif fault is Fault.UNREACHABLE and not reconnected:
                    self._discard_idle()
                    reconnected = True
                elif fault is Fault.SCHEMA:
                    raise SchemaMismatch(
                        "the table of audits is missing or of another version; "
                        "run `dramatiq-durable schema create BROKER`, "
                        "with BROKER as for the `dramatiq` command"
                    ) from error
                elif fault is Fault.OTHER:
                    raise
                else:
                    raise DatabaseUnreachable(
                        f"the database of audits does not answer ({type(error).__name__}); "
                        "check that it runs and that its address is right"
                    ) from error

    def close(self) -> None:
        """Close the connections that no statement is using now."""
        if not in_memory(self.database):
            self._discard_idle()

    def reserved(self) -> Connections:
        """One more connection, for a thread that must wait neither behind the others nor for locks."""
        if in_memory(self.database):
            return self
        return Connections(self.database, size=1, retries=1)

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._idle: list[peewee.Database] = []
        self._busy: dict[int, peewee.Database] = {}

    def _after_fork(self) -> None:
        if in_memory(self.database):
            return
        _inherited.extend(self._idle)
        _inherited.extend(self._busy.values())
        self._reset()

    @contextmanager
    def _lane(self) -> Iterator[peewee.Database]:
        thread = threading.get_ident()
        lane = self._borrow(thread)
        keep = False
        try:
            if lane.is_closed():
                _open(lane)
            yield lane
            keep = True
        except peewee.PeeweeException as error:
            keep = fault_of(error) is Fault.CONTENTION
            raise
        finally:
            # After an exception raised asynchronously in the middle of a
            # statement nobody knows what the connection is in the middle of.
            self._give_back(thread, keep or in_memory(self.database))

    def _borrow(self, thread: int) -> peewee.Database:
        size = 1 if in_memory(self.database) else self._size
        with self._free:
            # Lent already: an exception raised asynchronously kept it from coming back.
            self._reclaim({thread})
            while len(self._busy) >= size:
                if not self._free.wait(timeout=1):
                    alive = {t.ident for t in threading.enumerate()}
                    self._reclaim(self._busy.keys() - alive)
            lane = self._idle.pop() if self._idle else _twin(self.database)
            self._busy[thread] = lane
            return lane

    def _give_back(self, thread: int, keep: bool) -> None:
        with self._free:
            lane = self._busy.pop(thread, None)
            if lane is not None and keep:
                self._idle.append(lane)
            self._free.notify()
        if lane is not None and not keep:
            _discard(lane)

    def _reclaim(self, threads: set[Any]) -> None:
        for thread in threads:
            lane = self._busy.pop(thread, None)
            if lane is not None and in_memory(self.database):
                self._idle.append(lane)
            elif lane is not None:
                _discard(lane)

    def _discard_idle(self) -> None:
        with self._free:
            lanes, self._idle = self._idle, []
        for lane in lanes:
            _discard(lane)


def in_memory(database: peewee.Database) -> bool:
    """An SQLite database that exists only in its connection."""
    plain = _plain(database)
    return isinstance(plain, peewee.SqliteDatabase) and plain.database in (":memory:", "")


def _plain(database: Any) -> peewee.Database:
    while isinstance(database, peewee.Proxy):
        if database.obj is None:
            raise peewee.ImproperlyConfigured(
                "the DatabaseProxy given to DurableMiddleware has no database yet; "
                "call its initialize() before the first durable message"
            )
        database = database.obj
    found: peewee.Database = database
    return found


def _twin(database: peewee.Database) -> peewee.Database:
    """A Database like *database* with a connection of its own, of no thread and no pool."""
    source: Any = _plain(database)
    plain = next(
        cls
        for cls in type(source).__mro__
        if issubclass(cls, peewee.Database)
        and not issubclass(cls, (PooledDatabase, SqliteQueueDatabase))
    )
    twin: Any = plain.__new__(plain)
    twin.__dict__.update(source.__dict__)
    twin._state = peewee._ConnectionState()
    twin._lock = threading.RLock()
    twin.autoconnect = True
    if issubclass(plain, peewee.SqliteDatabase):
        twin.connect_params = {**source.connect_params, "check_same_thread": False}
        if not any(name == "journal_mode" for name, _ in source._pragmas):
            twin._pragmas = [("journal_mode", "wal"), *source._pragmas]
    found: peewee.Database = twin
    return found


def _open(lane: peewee.Database) -> None:
    lane.connect()
    # The statements of keeper and monitor pass by a row that somebody holds locked.
    if isinstance(lane, peewee.PostgresqlDatabase):
        lane.execute_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}s'")
    elif isinstance(lane, peewee.MySQLDatabase):
        lane.execute_sql(f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}")


def _discard(lane: Any) -> None:
    connection = lane._state.conn
    lane._state.reset()
    if connection is None:
        return
    try:
        connection.close()
    except Exception as error:  # noqa: BLE001 - a broken connection may fail to close in any way
        _logger.debug("could not close a broken connection: %s", type(error).__name__)
