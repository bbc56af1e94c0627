"""Lanes: private twins of a Database object, each with one connection, lent to one statement at a time.

Dramatiq interrupts actors by exceptions that strike their thread between any
two bytecodes, and so in here.  Nothing is held then but plain locks in
``with`` blocks, which survive that; ``threading.Condition`` would not.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import peewee
from dramatiq.logging import get_logger
from playhouse.pool import PooledDatabase
from playhouse.sqliteq import SqliteQueueDatabase

from .faults import REPEATED, Fault, fault_of
from .poolers import lift_limits, limit_lock_waits
from .receiving import receive

T = TypeVar("T")

_logger = get_logger(__name__)

LOCK_TIMEOUT = 1  # seconds that a statement of ours waits for somebody else's row lock
RECHECK = 0.2  # seconds after which somebody who waits for a lane looks for lost ones

# So that a connection which has fallen silent ends in an error, sooner than a lease of a default
# length and one interval; the application's own settings of these come first.  PostgreSQL's driver
# has none for a server, or a proxy before it, that is reached but does not answer.
_POSTGRES_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_MYSQL_LIMITS = {"read_timeout": 20, "write_timeout": 20}

# A child must not even close what it shares with its parent, so it keeps it until it ends.
_inherited: list[peewee.Database] = []


class Worn(Exception):
    """A connection that had served other statements before is broken; a new one may work."""


class _Use:
    """Lives as long as the statement that a lane is lent to."""


class Lanes:
    """At most *size* lanes of *database*.

    An in-memory database is one lane, which is always idle, so that nothing makes it be given up.
    """

    def __init__(self, database: peewee.Database, size: int) -> None:
        self.database = database
        self._size = size
        self._idle: list[peewee.Database] = []
        weakref.finalize(self, _discard_all, self._idle).atexit = False
        self._reset()
        reset = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def lend(self, statement: Callable[[peewee.Database], T]) -> T:
        """Give *statement* a connected lane, and return what it returns.

        Raises:
          Worn: The connection was not new, and is broken.
        """
        use = _Use()
        lane = self._borrow(use)
        keep = False
        new = lane.is_closed()
        try:
            if new:
                _open(lane)
            result = statement(lane)
            keep = True
            return result
        except peewee.PeeweeException as error:
            fault = fault_of(error)
            keep = fault in REPEATED
            if fault is Fault.UNREACHABLE and not new and not self._in_memory:
                raise Worn from error
            raise
        finally:
            # After an interrupt nobody knows what the connection is in the middle of.
            self._give_back(keep)

    def has_room(self) -> bool:
        """Whether one of them is free; a moment later it may be taken."""
        return len(self._busy) < self._limit

    def close(self) -> None:
        """Close the connections that no statement is using now."""
        if self._in_memory:
            return
        with self._lock:
            idle = self._idle[:]
            self._idle.clear()
        _discard_all(idle)

    @property
    def _limit(self) -> int:
        return 1 if self._in_memory else self._size

    @property
    def _in_memory(self) -> bool:
        return in_memory(self.database)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._freed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._busy: dict[int, tuple[peewee.Database, weakref.ref[_Use]]] = {}

    def _after_fork(self) -> None:
        lanes = [*self._idle, *(lane for lane, _ in self._busy.values())]
        if lanes and not self._in_memory:
            _inherited.extend(lanes)
            self._idle.clear()
        self._reset()

    def _borrow(self, use: _Use) -> peewee.Database:
        size = self._limit
        thread = threading.get_ident()
        while True:
            with self._lock:
                self._reclaim({thread, *self._lost()} if len(self._busy) >= size else {thread})
                if len(self._busy) < size:
                    lane = self._take()
                    self._busy[thread] = (lane, weakref.ref(use))
                    return lane
            try:
                receive(self._freed, RECHECK)
            except queue.Empty:
                continue

    def _take(self) -> peewee.Database:
        if not self._in_memory:
            return self._idle.pop() if self._idle else _twin(self.database)
        if not self._idle:
            self._idle.append(_twin(self.database))
        return self._idle[0]

    def _give_back(self, keep: bool) -> None:
        with self._lock:
            lane, _ = self._busy.pop(threading.get_ident(), (None, None))
            if lane is not None and keep and not self._in_memory:
                self._idle.append(lane)
        if self._freed.qsize() < self._size:
            self._freed.put(None)
        if lane is not None and not keep and not self._in_memory:
            _discard(lane)

    def _lost(self) -> list[int]:
        """Those whose lane an interrupt has kept from coming back."""
        return [thread for thread, (_, use) in self._busy.items() if use() is None]

    def _reclaim(self, threads: set[int]) -> None:
        for thread in threads & self._busy.keys():
            lane, _ = self._busy.pop(thread)
            if not self._in_memory:
                _discard(lane)


@contextmanager
def patient(database: peewee.Database) -> Iterator[peewee.Database]:
    """A connection of one's own for statements that take hours, which nothing of ours cuts short."""
    lane = _twin(database, is_patient=True)
    lane.connect()
    try:
        if isinstance(lane, peewee.PostgresqlDatabase):
            lift_limits(lane)
        yield lane
    finally:
        _discard(lane)


def in_memory(database: peewee.Database) -> bool:
    """An SQLite database that exists only in its connection."""
    plain = plain_of(database)
    return isinstance(plain, peewee.SqliteDatabase) and plain.database in (":memory:", "")


def plain_of(database: Any) -> peewee.Database:
    """*database* without the proxies around it."""
    while isinstance(database, peewee.Proxy):
        database = database.obj
    found: peewee.Database = database
    return found


def disconnected(database: peewee.Database) -> Any:
    """A Database like *database* for one connection, of no thread and no pool."""
    source: Any = plain_of(database)
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
    return twin


def _twin(database: peewee.Database, *, is_patient: bool = False) -> peewee.Database:
    source: Any = plain_of(database)
    twin = disconnected(source)
    plain = type(twin)
    twin.autoconnect = True
    if issubclass(plain, peewee.SqliteDatabase):
        twin.connect_params = {**source.connect_params, "check_same_thread": False}
        if not any(name == "journal_mode" for name, _ in source._pragmas):
            twin._pragmas = [("journal_mode", "wal"), *source._pragmas]
    else:
        limits = _limits(source, plain, is_patient=is_patient)
        twin.connect_params = {**limits, **source.connect_params}
    found: peewee.Database = twin
    return found


def _limits(source: Any, plain: Any, *, is_patient: bool) -> dict[str, int]:
    if issubclass(plain, peewee.PostgresqlDatabase):
        # Its name may be a connection string.
        return {name: n for name, n in _POSTGRES_LIMITS.items() if name not in str(source.database)}
    mysql: Any = peewee.MySQLDatabase
    # What connects in a way of its own may not know these.
    return _MYSQL_LIMITS if plain._connect is mysql._connect and not is_patient else {}


def _open(lane: peewee.Database) -> None:
    lane.connect()
    # The statements of keeper and monitor pass by a row that somebody holds locked.
    if isinstance(lane, peewee.PostgresqlDatabase):
        limit_lock_waits(lane, f"{LOCK_TIMEOUT}s")
    elif isinstance(lane, peewee.MySQLDatabase):
        # By default an UPDATE that scans a small table waits for every row that somebody holds.
        lane.execute_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        lane.execute_sql(
            f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}, lock_wait_timeout = {LOCK_TIMEOUT}"
        )


def _discard_all(lanes: list[peewee.Database]) -> None:
    for lane in lanes:
        _discard(lane)


def _discard(lane: Any) -> None:
    """Close a connection that is in nobody knows what state."""
    connection = lane._state.conn
    lane._state.reset()
    if connection is None:
        return
    try:
        connection.close()
    except Exception as error:  # noqa: BLE001 - a broken connection may fail to close in any way
        _logger.debug("could not close a broken connection: %s", type(error).__name__)
