"""What a monitor asks and notes of messages that wait in the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import peewee

from ..models import COMPLETED, RUNNING
from .base import chunks
from .monitoring import Monitoring, Stale, moment

#: A held audit is looked at again after its job_timeout divided by this.
HOLDS_PER_TIMEOUT = 10

IDS_PER_STATEMENT = 500


@dataclass(frozen=True)
class Reach:
    """How far a queue has come: when the newest of its claimed copies was enqueued, and when one was claimed last."""

    enqueued_at: datetime
    started_at: datetime

    def further(self, other: Reach) -> Reach:
        return Reach(
            max(self.enqueued_at, other.enqueued_at), max(self.started_at, other.started_at)
        )


class Waiting(Monitoring):
    def hold(self, stale: Sequence[Stale]) -> int:
        """Postpone stale audits whose messages still wait in the broker; returns how many.

        Nothing counts it as a send.  What another monitor has marked meanwhile stays as it is.
        """
        audit = self.audit
        return sum(
            self._execute(
                audit.update(due_at=self.now() + audit.job_timeout / HOLDS_PER_TIMEOUT).where(
                    audit.id.in_([each.id for each in part]),
                    self._is_out(),
                    audit.due_at <= self.now(),
                )
            )
            for part in chunks(stale, IDS_PER_STATEMENT)
        )

    def clock(self) -> datetime:
        """The time by the database's clock."""
        [[now]] = self._execute(peewee.Select(columns=[self.now()]).tuples())
        return moment(now)

    def with_broker(
        self, limit: int, *, created_by: datetime, after: Stale | None = None
    ) -> list[Stale]:
        """At most *limit* audits that nobody has claimed since a copy went out, stale or not, oldest first.

        *created_by* leaves out those whose first push may still be under way.
        """
        audit = self.audit
        return self._read(self._is_out() & (audit.created_at <= created_by), limit, after)

    def with_broker_among(self, message_ids: Sequence[str]) -> list[Stale]:
        """Those of *message_ids* that nobody has claimed since a copy went out."""
        return [
            stale
            for part in chunks(message_ids, IDS_PER_STATEMENT)
            for stale in self._read(self.audit.message_id.in_(part) & self._is_out(), None)
        ]

    def reach(self, sample: int) -> tuple[dict[str, Reach], bool]:
        """How far each queue has come, by the last *sample* jobs that were completed; and whether these are all."""
        audit = self.audit
        rows = self._execute(
            audit.select(audit.queue_name, audit.enqueued_at, audit.started_at)
            .where(self._in_namespace(), audit.state == COMPLETED, audit.finished_at.is_null(False))
            .order_by(audit.finished_at.desc())
            .limit(sample)
            .tuples()
        )
        found: dict[str, Reach] = {}
        for queue, enqueued_at, started_at in rows:
            if enqueued_at is not None and started_at is not None:
                reach = Reach(enqueued_at, started_at)
                found[queue] = reach.further(found[queue]) if queue in found else reach
        return found, len(rows) < sample

    def _is_out(self) -> Any:
        audit = self.audit
        # Open, and so pending; said like this MariaDB uses the index that has them in order.
        return (
            audit.due_at.is_null(False)
            & (audit.state != RUNNING)
            & audit.enqueued_at.is_null(False)
        )
