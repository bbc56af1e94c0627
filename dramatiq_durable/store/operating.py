"""What an operator asks and does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import peewee
from peewee import fn

from ..models import CANCELLED, DEAD, OPEN, PENDING, Audit
from .base import Base, chunks

IDS_PER_STATEMENT = 500


@dataclass(frozen=True)
class Filters:
    """Which audits an operator means; None stands for all of them.

    *older_than* counts from created_at; *stale* means open and past due_at.
    """

    message_ids: Sequence[str] | None = None
    states: Sequence[str] | None = None
    actor_name: str | None = None
    queue_name: str | None = None
    older_than: timedelta | None = None
    stale: bool = False


@dataclass(frozen=True)
class Tally:
    """How many audits of an actor and queue are in a state, and how many of them are stale."""

    state: str
    queue_name: str
    actor_name: str
    count: int
    stale: int


class Operating(Base):
    def tallies(self) -> list[Tally]:
        """The number of audits by state, queue and actor."""
        audit = self.audit
        stale = fn.SUM(peewee.Case(None, [(audit.due_at <= self.now(), 1)], 0))
        keys = (audit.state, audit.queue_name, audit.actor_name)
        rows: list[Any] = self._execute(
            audit.select(*keys, fn.COUNT(audit.id), stale)
            .where(self._in_namespace())
            .group_by(*keys)
            .order_by(*keys)
            .tuples()
        )
        return [
            Tally(state, queue, actor, int(count), int(late))
            for state, queue, actor, count, late in rows
        ]

    def oldest_stale(self) -> timedelta | None:
        """How long ago the oldest stale audit became due; None when there is none."""
        audit = self.audit
        rows = self._execute(
            audit.select(fn.MIN(audit.due_at).coerce(False), self.now())
            .where(self._in_namespace(), audit.due_at <= self.now())
            .tuples()
        )
        due_at, now = rows[0]
        return None if due_at is None else timedelta(microseconds=int(now) - int(due_at))

    def clock_error(self) -> timedelta:
        """How far this machine's clock is ahead of the database's, as far as the answer's way allows to say."""
        sent = self.sender_clock()
        [[now]] = self._execute(peewee.Select(columns=[self.now()]).tuples())
        came = self.sender_clock()
        milliseconds = int(now) / 1_000
        ahead = min(came - milliseconds, 0) or max(sent - milliseconds, 0)
        return timedelta(milliseconds=ahead)

    def list_audits(
        self, filters: Filters | None = None, *, limit: int | None = None
    ) -> list[Audit]:
        """The audits that *filters* select, newest first, at most *limit*, without their payloads."""
        fields = [f for f in self.audit._meta.sorted_fields if f.name != "payload"]
        query = self.audit.select(*fields).where(self._matching(filters or Filters()))
        rows: list[Audit] = self._execute(query.order_by(self.audit.id.desc()).limit(limit))
        return rows

    def get(self, message_id: str) -> Audit | None:
        """One audit with its payload."""
        rows = self._execute(
            self.audit.select().where(self._in_namespace(), self.audit.message_id == message_id)
        )
        return rows[0] if rows else None

    def ids(self, filters: Filters) -> list[str]:
        """The message_ids of the audits that *filters* select, oldest first."""
        rows = self._execute(
            self.audit.select(self.audit.message_id)
            .where(self._matching(filters))
            .order_by(self.audit.id)
            .tuples()
        )
        return [row[0] for row in rows]

    def cancel(self, message_ids: Sequence[str]) -> Iterator[int]:
        """Close the open ones of *message_ids*; yields how many, batch by batch."""
        for part in chunks(message_ids, IDS_PER_STATEMENT):
            yield self._execute(
                self.audit.update(
                    state=CANCELLED,
                    epoch=self.audit.epoch + 1,
                    due_at=None,
                    finished_at=self.now(),
                ).where(
                    self._in_namespace(),
                    self.audit.message_id.in_(part),
                    self.audit.state.in_(OPEN),
                )
            )

    def retry(self, message_ids: Sequence[str]) -> Iterator[int]:
        """Bring the dead and cancelled ones of *message_ids* back; yields how many, batch by batch.

        A cancelled one is due when the lease of the run that was cancelled is
        over: before, two would run at once.
        """
        audit = self.audit
        lease_over = audit.finished_at + self._lease_length(audit.lease)
        later = peewee.Case(None, [(lease_over > self.now(), lease_over)], self.now())
        for part in chunks(message_ids, IDS_PER_STATEMENT):
            chosen = self._in_namespace() & audit.message_id.in_(part)
            back = self._execute(
                audit.update(self._afresh(self.now())).where(chosen, audit.state == DEAD)
            )
            back += self._execute(
                audit.update(self._afresh(later)).where(chosen, audit.state == CANCELLED)
            )
            yield back

    def _afresh(self, due_at: Any) -> dict[Any, Any]:
        audit = self.audit
        return {
            audit.state: PENDING,
            audit.epoch: audit.epoch + 1,
            audit.due_at: due_at,
            audit.scheduled_at: self.now(),
            audit.enqueued_at: None,
            audit.finished_at: None,
            audit.enqueue_count: 0,
            audit.crash_count: 0,
            audit.failure_count: 0,
            audit.requeue_count: 0,
        }

    def _matching(self, filters: Filters) -> Any:
        audit = self.audit
        clause = self._in_namespace()
        if filters.message_ids is not None:
            clause &= audit.message_id.in_(list(filters.message_ids))
        if filters.states is not None:
            clause &= audit.state.in_(list(filters.states))
        if filters.actor_name is not None:
            clause &= audit.actor_name == filters.actor_name
        if filters.queue_name is not None:
            clause &= audit.queue_name == filters.queue_name
        if filters.older_than is not None:
            clause &= audit.created_at <= self.now(-filters.older_than)
        if filters.stale:
            clause &= audit.due_at <= self.now()
        return clause
