"""What all statements share: the table, the clock, the way to the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple

import peewee

from ..borrowing import is_borrowed
from ..connections import Connections, Through
from ..lanes import plain_of
from ..models import Audit
from ..signing import Signer
from .rendering import Rendered, parameter, rendered_for

MICROSECONDS = 10**6

#: How long a monitor, or the sender of a committed transaction, has to push what it marked.
PUSH_LEASE = timedelta(seconds=60)

LAST_ERROR_LENGTH = 2_000

# The moment a statement began, in microseconds since 1970.  now() stands
# still in a transaction of PostgreSQL, and clock_timestamp() is volatile, so that no index serves it.
_NOW = {
    peewee.PostgresqlDatabase: "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
    peewee.MySQLDatabase: "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
    peewee.SqliteDatabase: "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
}


class Held(NamedTuple):
    """A worker's hold on a running audit: what its writes are guarded by."""

    message_id: str
    token: int
    claim_id: str


@dataclass(frozen=True)
class Copy:
    """A copy of a message that nobody has claimed: what may still be done to its audit."""

    message_id: str
    epoch: int


@dataclass(frozen=True)
class NewAudit:
    """What the sender knows of a message; *delay* until it is meant to start."""

    message_id: str
    actor_name: str
    queue_name: str
    payload: bytes
    delay: timedelta
    job_timeout: timedelta
    lease: timedelta
    backoff: timedelta
    broker_message_id: str | None = None
    unique_key: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)  # of a subclass of Audit


class Base:
    """The audits of *namespace* in the table of *audit*."""

    #: Added to the database's clock; the one seam by which tests move time.
    clock_offset: ClassVar[timedelta] = timedelta(0)

    def __init__(
        self,
        audit: type[Audit],
        namespace: str,
        connections: Connections,
        signer: Signer | None = None,
    ) -> None:
        self.audit: Any = audit
        self.namespace = namespace
        self.connections = connections
        self._signer = signer
        self._now_sql: peewee.SQL | None = None
        self._known = rendered_for(audit)
        self._reserved: Any = None
        self._aside: Any = None

    @property
    def database(self) -> peewee.Database:
        """The application's Database object, for what must happen in its transactions."""
        return self.connections.database

    @property
    def takes_arrays(self) -> bool:
        """Whether a statement of many rows takes a list for each column; see :func:`arrays`."""
        return isinstance(plain_of(self.database), peewee.PostgresqlDatabase)

    def through(self, transaction: peewee.Database) -> Any:
        """The same audits, all in the caller's *transaction*."""
        connections: Any = Through(self.database, transaction)
        return type(self)(self.audit, self.namespace, connections, self._signer)

    def reserved(self) -> Any:
        """The same audits, through a connection that nobody else waits for."""
        if self._reserved is None:
            reserved = self.connections.reserved()
            self._reserved = type(self)(self.audit, self.namespace, reserved, self._signer)
        return self._reserved

    def aside(self) -> Any:
        """The same audits, through the connection of what a monitor does beside its passes."""
        if self._aside is None:
            aside = self.connections.aside()
            self._aside = type(self)(self.audit, self.namespace, aside, self._signer)
        return self._aside

    def now(self, plus: timedelta = timedelta(0)) -> Any:
        """The database's clock as an expression, *plus* later."""
        if self._now_sql is None:
            self._now_sql = peewee.SQL(_now_sql(plain_of(self.database)))
        offset = microseconds(self.clock_offset + plus)
        return self._now_sql + offset if offset else self._now_sql

    def sender_clock(self) -> int:
        """This machine's clock in milliseconds, for what only has to be roughly right."""
        return int(time.time() * 1000) + microseconds(self.clock_offset) // 1000

    def verify(self, audit: Any) -> None:
        """Look whether *audit* is signed, before its payload is decoded; without a key all are good.

        Raises:
          SignatureRefused: It is unsigned, was altered, or signed with another key.
        """
        if self._signer is not None:
            self._signer.verify(audit, audit.signature)

    def _execute(self, query: Any) -> Any:
        """Run *query* on a connection of our own; the row count of a write, the rows of a select."""
        return self.connections.run(lambda lane: materialised(query.execute(lane)))

    def _write(self, build: Callable[..., Any], *shape: Hashable, **values: Any) -> int:
        """Run what *build* makes of *shape* with *values* for its parameters; returns how many rows it has changed."""
        rendered = self._rendered(build, *shape)
        return self.connections.run(lambda lane: rendered.run(lane, values))

    def _rendered(self, build: Callable[..., Any], *shape: Hashable) -> Rendered:
        database = plain_of(self.database)
        known = self._known
        key = (type(database), self.clock_offset, build.__name__, shape)
        if key not in known:
            known[key] = Rendered(database, build(*shape))
        return known[key]

    def _is_callers(self, database: peewee.Database) -> bool:
        """Whether it is the application that has begun the transaction on *database*."""
        return database is self.database or is_borrowed(database)

    def _changed(self, query: Any) -> bool:
        changed: int = self._execute(query)
        return changed == 1

    def _in_namespace(self) -> Any:
        return self.audit.namespace == self.namespace

    def _held_by(self, held: Held) -> Any:
        return (
            (self.audit.message_id == held.message_id)
            & (self.audit.epoch == held.token)
            & (self.audit.claim_id == held.claim_id)
        )

    def _held(self, number: int = 0) -> Any:
        """The same for the one of that number in a rendered statement; see :func:`of_holds`."""
        return (
            (self.audit.message_id == parameter(f"message_id{number}"))
            & (self.audit.epoch == parameter(f"token{number}"))
            & (self.audit.claim_id == parameter(f"claim_id{number}"))
        )

    def _lease_length(self, lease: Any) -> Any:
        # A job whose worker crashed is slowed down; the first crash is not held against it.
        crashed = peewee.Case(None, [(self.audit.crash_count > 0, self.audit.backoff)], 0)
        return lease + crashed


def of_holds(holds: Sequence[Held]) -> dict[str, Any]:
    """The values of :meth:`Base._held`."""
    return {
        f"{name}{number}": value
        for number, held in enumerate(holds)
        for name, value in (
            ("message_id", held.message_id), ("token", held.token), ("claim_id", held.claim_id),
        )
    }  # fmt: skip


def microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def error_text(error: BaseException | str) -> str:
    """An error as one short line without control characters, fit for a column and a terminal."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {_said_by(error)}"
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * LAST_ERROR_LENGTH])
    return line.encode("utf-8", "replace").decode()[:LAST_ERROR_LENGTH]


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - whatever it raises, the first is what has to be recorded
        return f"({type(second).__name__} in its text)"


def materialised(result: Any) -> Any:
    # Rows must be read before the connection is lent to another thread.
    return result if isinstance(result, (int, type(None))) else list(result)


def _now_sql(database: peewee.Database) -> str:
    for cls, sql in _NOW.items():
        if isinstance(database, cls):
            return sql
    raise peewee.ImproperlyConfigured(
        f"dramatiq-durable knows SQLite, PostgreSQL, MySQL and MariaDB, not {type(database).__name__}"
    )


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
