"""A monitor's transitions, of many audits at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import peewee

from ..errors import AuditLocked
from ..lanes import plain_of
from ..models import PENDING, RUNNING
from .base import microseconds
from .monitoring import Marked, Monitoring, Stale, instant, whole
from .rendering import padded, parameter

#: Audits of a statement; a power of two, for which the 999 variables of older SQLites are enough.
MOST = 64


class Many(Monitoring):
    """Each takes at most :data:`MOST`."""

    def load_all(self, listed: Sequence[Stale]) -> list[Stale]:
        """Those that are still as they were read, with their payloads, in their order."""
        if len(listed) == 1:
            return [stale for stale in map(self.load, listed) if stale is not None]
        audit = self.audit
        rows = self._execute(
            audit.select(*self._read_columns(), audit.payload, audit.signature)
            .where(audit.id.in_([each.id for each in listed]))
            .tuples()
        )
        loaded = {tuple(key): (payload, signature) for *key, payload, signature in rows}
        return [
            replace(stale, payload=whole(payload), signature=signature)
            for stale in listed
            for payload, signature in [loaded.get(key_of(stale), (None, None))]
            if key_of(stale) in loaded
        ]

    def mark_all(self, wanted: Sequence[tuple[Stale, timedelta]]) -> list[Marked]:
        """Elect this monitor to push these messages; each with the backoff of its next recovery.

        Returns:
          Those that are still as they were read, and that nobody else holds locked, in their order.
        """
        if len(wanted) <= 1:
            return [marked for each in wanted if (marked := self.mark(*each)) is not None]
        due_at = self._push_ends(wanted[0][0])
        elected = self.connections.run(lambda lane: self._elect(lane, wanted, instant(due_at)))
        return [Marked(stale, due_at) for stale, _ in wanted if stale.id in elected]

    def _elect(self, lane: Any, wanted: Sequence[tuple[Stale, timedelta]], due_at: int) -> set[int]:
        groups: dict[tuple[int, bool], list[int]] = {}
        with transaction(lane):
            # What is as it was read cannot change until the end: the UPDATEs need no guard.
            free = self._lock(lane, [stale for stale, _ in wanted])
            for stale, backoff in wanted:
                if key_of(stale) in free:
                    key = (microseconds(backoff), stale.state == RUNNING)
                    groups.setdefault(key, []).append(stale.id)
            for (backoff_length, crashed), ids in groups.items():
                same = padded(ids, MOST)
                values = {"backoff": backoff_length, "due_at": due_at, **_numbered("id", same)}
                self._rendered(self._mark_all, len(same), crashed).run(lane, values)
        return {each for ids in groups.values() for each in ids}

    def _lock(self, lane: Any, listed: Sequence[Stale]) -> set[tuple[Any, ...]]:
        query = self.audit.select(*self._read_columns()).where(
            self.audit.id.in_([each.id for each in listed])
        )
        if not isinstance(plain_of(lane), peewee.SqliteDatabase):
            query = query.for_update(skip_locked=True)
        return {tuple(row) for row in query.tuples().execute(lane)}

    def _read_columns(self) -> tuple[Any, ...]:
        """What a monitor's guard compares."""
        audit = self.audit
        return audit.id, audit.state, audit.epoch, audit.due_at, audit.enqueue_count

    def _mark_all(self, count: int, crashed: bool) -> Any:
        audit = self.audit
        return audit.update(
            state=PENDING,
            enqueue_count=audit.enqueue_count + 1,
            crash_count=audit.crash_count + int(crashed),
            backoff=parameter("backoff"),
            enqueued_at=None,
            due_at=parameter("due_at"),
        ).where(audit.id.in_([parameter(f"id{n}") for n in range(count)]))

    def confirm_all(self, pushed: Sequence[tuple[Marked, str | None]]) -> None:
        """The messages are with the broker, each under the id that it has there.

        One that somebody holds locked stays as it was marked, and is sent once more after its push lease.
        """
        try:
            self._confirm_together(pushed)
        except AuditLocked:
            for marked, broker_message_id in pushed:
                with suppress(AuditLocked):
                    self.confirm(marked, broker_message_id)

    def _confirm_together(self, pushed: Sequence[tuple[Marked, str | None]]) -> None:
        same = padded(pushed, MOST)
        marks = [marked for marked, _ in same]
        self._write(
            self._confirm_all,
            len(same),
            due_at=instant(marks[0].due_at),
            **_numbered("id", [each.stale.id for each in marks]),
            **_numbered("epoch", [each.stale.epoch for each in marks]),
            **_numbered("starts_at", [instant(each.starts_at) for each in marks]),
            **_numbered("broker_message_id", [broker_id for _, broker_id in same]),
        )

    def _confirm_all(self, count: int) -> Any:
        audit = self.audit

        def of_each(name: str) -> Any:
            cases = [(parameter(f"id{n}"), parameter(f"{name}{n}")) for n in range(count)]
            return peewee.Case(audit.id, cases)

        return audit.update(
            due_at=of_each("starts_at") + audit.job_timeout + audit.backoff,
            enqueued_at=of_each("starts_at"),
            broker_message_id=of_each("broker_message_id"),
        ).where(
            audit.id.in_([parameter(f"id{n}") for n in range(count)]),
            audit.state == PENDING,
            audit.due_at == parameter("due_at"),
            audit.epoch == of_each("epoch"),
        )


def key_of(stale: Stale) -> tuple[Any, ...]:
    """What a monitor's guard compares; see :meth:`Many._read_columns`."""
    return stale.id, stale.state, stale.epoch, stale.due_at, stale.enqueue_count


def _numbered(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}{number}": value for number, value in enumerate(values)}


def transaction(lane: Any) -> Any:
    """A transaction that is sure of what it reads."""
    # SQLite's other transactions take their lock too late to be sure of what they have read.
    return lane.atomic("IMMEDIATE") if isinstance(lane, peewee.SqliteDatabase) else lane.atomic()
