"""The monitor's transitions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import peewee

from ..models import CANCELLED, COMPLETED, DEAD, PENDING, RUNNING
from .base import PUSH_LEASE, Base, error_text, microseconds

_EPOCH = datetime(1970, 1, 1)


class Stale(NamedTuple):
    """An open audit as a monitor has read it, most often past its due_at.

    Its payload and signature come by :meth:`Monitoring.load`.
    """

    id: int
    message_id: str
    actor_name: str
    queue_name: str
    state: str
    epoch: int
    due_at: datetime
    scheduled_at: datetime
    created_at: datetime
    enqueued_at: datetime | None
    enqueue_count: int
    crash_count: int
    job_timeout: int  # microseconds
    broker_message_id: str | None
    payload_size: int  # bytes
    read_at: datetime
    read_on: float  # the monotonic clock at read_at
    pass_at: datetime  # read_at of the first batch of its pass
    payload: bytes = b""
    signature: str | None = None

    @property
    def now(self) -> datetime:
        """The database's clock, carried on by this machine's since the audit was read."""
        return self.read_at + timedelta(seconds=time.monotonic() - self.read_on)

    @property
    def starts_at(self) -> datetime:
        """When its newest copy came into its queue, or comes there, for it is delayed."""
        return max(self.enqueued_at or self.scheduled_at, self.scheduled_at)

    @property
    def is_with_broker(self) -> bool:
        """Whether a copy is out, as far as the audit says: nobody has claimed it, or given the job up."""
        return self.state == PENDING and self.enqueued_at is not None


@dataclass(frozen=True)
class Marked:
    """A stale audit that this monitor, and no other, has to push; guarded by *due_at*."""

    stale: Stale
    due_at: datetime

    @property
    def starts_at(self) -> datetime:
        """When the copy that is to be pushed comes into its queue."""
        return max(self.due_at - PUSH_LEASE, self.stale.starts_at)


class Monitoring(Base):
    def stale(self, limit: int, *, after: Stale | None = None) -> list[Stale]:
        """At most *limit* open audits past their due_at, oldest first, without their payloads.

        *after* the last one of the batch before: those that follow it and were due then, so that
        what a pass makes due again is for the next one.
        """
        due_at = self.audit.due_at
        due = due_at <= (self.now() if after is None else after.pass_at)
        return self._read(due, limit, after)

    def latest(self, limit: int) -> list[Stale]:
        """At most *limit* of the open audits that became due last, so that they need not wait for all older ones."""
        due_at = self.audit.due_at
        return self._read(due_at <= self.now(), limit, None, due_at.desc())

    def count_stale(self, most: int) -> int:
        """How many open audits are past their due_at; no more than *most* are counted."""
        audit = self.audit
        due = audit.select(audit.id).where(self._in_namespace(), audit.due_at <= self.now())
        due = due.limit(most).alias("due")
        query = peewee.Select([due], [peewee.fn.COUNT(peewee.SQL("*"))])
        return int(self._execute(query.tuples())[0][0])

    def _read(
        self, condition: Any, limit: int | None, after: Stale | None = None, *order: Any
    ) -> list[Stale]:
        """At most *limit* open audits, *after* one in the order of due_at and id."""
        audit = self.audit
        columns = (
            audit.id, audit.message_id, audit.actor_name, audit.queue_name, audit.state,
            audit.epoch, audit.due_at, audit.scheduled_at, audit.created_at, audit.enqueued_at,
            audit.enqueue_count, audit.crash_count, audit.job_timeout, audit.broker_message_id,
            peewee.fn.LENGTH(audit.payload),
        )  # fmt: skip
        before = time.monotonic()
        query = audit.select(*columns, self.now().alias("clock"))
        query = query.where(self._in_namespace(), condition)
        if after is not None:
            query = query.where(
                audit.due_at >= after.due_at,
                (audit.due_at > after.due_at) | (audit.id > after.id),
            )
        query = query.order_by(*(order or (audit.due_at, audit.id))).limit(limit)
        return [self._stale(row, before, after) for row in self._execute(query.tuples())]

    def _stale(self, row: Any, read_on: float, after: Stale | None) -> Stale:
        *columns, clock = row
        read_at = moment(clock)
        pass_at = read_at if after is None else after.pass_at
        return Stale(*columns, read_at, read_on, pass_at)  # type: ignore[call-arg]

    def load(self, stale: Stale) -> Stale | None:
        """The audit with its payload, which alone may take as much memory as all else of a batch.

        Returns:
          None when the audit is no longer as it was read.
        """
        query = self.audit.select(self.audit.payload, self.audit.signature)
        rows = self._execute(query.where(self._as_read(stale)).tuples())
        if not rows:
            return None
        payload, signature = rows[0]
        return stale._replace(payload=whole(payload), signature=signature)

    def mark(self, stale: Stale, backoff: timedelta) -> Marked | None:
        """Elect this monitor to push the message; *backoff* is that of its next recovery.

        Returns:
          None when another monitor was first, or the audit is no longer as it was read.
        """
        due_at = self._push_ends(stale)
        marked = self._changed(
            self.audit.update(
                state=PENDING,
                enqueue_count=self.audit.enqueue_count + 1,
                crash_count=self.audit.crash_count + int(stale.state == RUNNING),
                backoff=microseconds(backoff),
                enqueued_at=None,
                due_at=due_at,
            ).where(self._as_read(stale))
        )
        return Marked(stale, due_at) if marked else None

    def _push_ends(self, stale: Stale) -> datetime:
        """Until when it is this monitor's to push, if it marks it now."""
        return stale.now + PUSH_LEASE

    def confirm(self, marked: Marked, broker_message_id: str | None) -> bool:
        """The message is with the broker."""
        audit = self.audit
        return self._changed(
            audit.update(
                due_at=instant(marked.starts_at) + audit.job_timeout + audit.backoff,
                enqueued_at=marked.starts_at,
                broker_message_id=broker_message_id,
            ).where(self._as_marked(marked))
        )

    def unmark(self, marked: Marked, pause: timedelta, error: BaseException | str) -> bool:
        """The broker did not take the message, nor would it take another; no backoff is used up."""
        return self._changed(
            self.audit.update(
                due_at=self.now(pause),
                enqueue_count=self.audit.enqueue_count - 1,
                last_error=error_text(error),
            ).where(self._as_marked(marked))
        )

    def set_aside(self, marked: Marked, error: BaseException | str) -> bool:
        """This message cannot be sent; it is tried again after its backoff."""
        return self._changed(
            self.audit.update(
                due_at=self.now() + self.audit.backoff, last_error=error_text(error)
            ).where(self._as_marked(marked))
        )

    def expire(self, stale: Stale, reason: str) -> bool:
        """Give the job up; its payload stays, and an operator may retry it."""
        return self._changed(
            self.audit.update(
                state=DEAD,
                due_at=None,
                finished_at=self.now(),
                crash_count=self.audit.crash_count + int(stale.state == RUNNING),
                last_error=error_text(reason),
            ).where(self._as_read(stale))
        )

    def cleanup(self, limit: int, *, retention: timedelta, dead_retention: timedelta | None) -> int:
        """Delete at most *limit* finished audits that are older than their retention.

        The time counts from the later of finished_at and scheduled_at, for a
        delayed copy of a cancelled job may reach a worker as late as its eta.
        *dead_retention* None keeps dead audits for ever.
        """
        audit = self.audit
        expired = self._expired(retention, dead_retention)
        ids = [
            row[0]
            for row in self._execute(audit.select(audit.id).where(expired).limit(limit).tuples())
        ]
        if not ids:
            return 0
        # An operator may have retried one since its id was read.
        deleted: int = self._execute(audit.delete().where(audit.id.in_(ids), expired))
        return deleted

    def count_expired(self, *, retention: timedelta, dead_retention: timedelta | None) -> int:
        """How many finished audits are older than their retention."""
        query = self.audit.select(peewee.fn.COUNT(self.audit.id))
        rows = self._execute(query.where(self._expired(retention, dead_retention)).tuples())
        return int(rows[0][0])

    def _expired(self, retention: timedelta, dead_retention: timedelta | None) -> Any:
        expired = self._finished_before((COMPLETED, CANCELLED), retention)
        if dead_retention is not None:
            expired |= self._finished_before((DEAD,), dead_retention)
        # Said once more outside of the OR: else SQLite does not see that the partial index has them all.
        return self.audit.finished_at.is_null(False) & expired

    def _finished_before(self, states: tuple[str, ...], retention: timedelta) -> Any:
        horizon = self.now(-retention)
        # SQLite serves an OR by an index only if each side of it has the index's first column.
        return (
            self._in_namespace()
            & self.audit.state.in_(states)
            & (self.audit.finished_at <= horizon)
            & (self.audit.scheduled_at <= horizon)
        )

    def _as_read(self, stale: Stale) -> Any:
        return (
            (self.audit.id == stale.id)
            & (self.audit.state == stale.state)
            & (self.audit.epoch == stale.epoch)
            & (self.audit.due_at == stale.due_at)
            # A delayed message that is sent again may be due at the same moment as before.
            & (self.audit.enqueue_count == stale.enqueue_count)
        )

    def _as_marked(self, marked: Marked) -> Any:
        return (
            (self.audit.id == marked.stale.id)
            & (self.audit.state == PENDING)
            & (self.audit.epoch == marked.stale.epoch)
            & (self.audit.due_at == marked.due_at)
        )


def whole(payload: Any) -> bytes:
    # SQLite lets anything be written into any column, and bytes() of a number is that many bytes.
    return bytes(payload) if isinstance(payload, (bytes, bytearray, memoryview)) else b""


def moment(now: Any) -> datetime:
    """The database's clock, as it answers, in the terms of the columns."""
    return _EPOCH + timedelta(microseconds=int(now))


def instant(moment: datetime) -> int:
    """The other way round: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
