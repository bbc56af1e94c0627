"""A monitor's transitions, of many audits at once."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import peewee

from ..errors import AuditLocked
from ..lanes import plain_of
from ..models import PENDING, RUNNING
from .base import microseconds
from .monitoring import Marked, Monitoring, Stale, instant, whole
from .rendering import arrays, padded, parameter

#: Audits of a statement; a power of two, for which the 999 variables of older SQLites are enough.
MOST = 64

#: The same where a column of all of them is one parameter.
MOST_BY_ARRAYS = 128

#: What a monitor's guard compares, and its types in PostgreSQL; see :func:`as_read`.
_AS_READ = {
    "id": "bigint",
    "state": "text",
    "epoch": "bigint",
    "due_at": "bigint",
    "enqueue_count": "bigint",
}

_WANTED = {**_AS_READ, "backoff": "bigint"}

#: What is of each pushed message alone.
_PUSHED = {"id": "bigint", "epoch": "bigint", "starts_at": "bigint", "broker_message_id": "text"}


class Many(Monitoring):
    """Each takes at most :attr:`most`."""

    @property
    def most(self) -> int:
        """For how many audits a statement is."""
        return MOST_BY_ARRAYS if self.takes_arrays else MOST

    def load_all(self, listed: Sequence[Stale]) -> list[Stale]:
        """Those that are still as they were read, with their payloads, in their order."""
        if len(listed) == 1:
            return [stale for stale in map(self.load, listed) if stale is not None]
        count, ids = self._ids([stale.id for stale in listed])
        select = self._rendered(self._load_all, count)
        rows = self.connections.run(lambda lane: select.rows(lane, ids))
        loaded = {tuple(key): (payload, signature) for *key, payload, signature in rows}
        return [
            stale._replace(payload=whole(payload), signature=signature)
            for stale in listed
            for payload, signature in [loaded.get(as_read(stale), (None, None))]
            if as_read(stale) in loaded
        ]

    def _load_all(self, count: int) -> Any:
        audit = self.audit
        return self._read_again(count, audit.payload, audit.signature)

    def mark_all(self, wanted: Sequence[tuple[Stale, timedelta]]) -> list[Marked]:
        """Elect this monitor to push these messages; each with the backoff of its next recovery.

        Returns:
          Those that are still as they were read, and that nobody else holds locked, in their order.
        """
        if len(wanted) <= 1:
            return [marked for each in wanted if (marked := self.mark(*each)) is not None]
        due_at = self._push_ends(wanted[0][0])
        elect = self._elect_by_arrays if self.takes_arrays else self._elect
        elected = self.connections.run(lambda lane: elect(lane, wanted, instant(due_at)))
        return [Marked(stale, due_at) for stale, _ in wanted if stale.id in elected]

    def _elect_by_arrays(
        self, lane: Any, wanted: Sequence[tuple[Stale, timedelta]], due_at: int
    ) -> set[int]:
        rows = [(*as_read(stale), microseconds(backoff)) for stale, backoff in wanted]
        values = _lists(_WANTED, rows)
        marked = self._rendered(self._mark_arrays).rows(lane, {**values, "push_ends": due_at})
        return {each for [each] in marked}

    def _mark_arrays(self) -> Any:
        audit = self.audit
        rows, of_one = arrays(_WANTED)
        free = self._free(rows, of_one, {name: of_one[name] for name in _AS_READ})
        crashes = peewee.Case(None, [(audit.state == RUNNING, 1)], 0)
        marked = self._marked(free.c.backoff, crashes, parameter("push_ends"))
        return marked.from_(free).where(audit.id == free.c.id).returning(audit.id)

    def _elect(self, lane: Any, wanted: Sequence[tuple[Stale, timedelta]], due_at: int) -> set[int]:
        groups: dict[tuple[int, bool], list[int]] = {}
        with transaction(lane):
            # What is as it was read cannot change until the end: the UPDATEs need no guard.
            free = self._lock(lane, [stale for stale, _ in wanted])
            for stale, backoff in wanted:
                if as_read(stale) in free:
                    key = (microseconds(backoff), stale.state == RUNNING)
                    groups.setdefault(key, []).append(stale.id)
            for (backoff_length, crashed), ids in groups.items():
                count, same = self._ids(ids)
                values = {"backoff": backoff_length, "due_at": due_at, **same}
                self._rendered(self._mark_all, count, crashed).run(lane, values)
        return {each for ids in groups.values() for each in ids}

    def _lock(self, lane: Any, listed: Sequence[Stale]) -> set[tuple[Any, ...]]:
        count, ids = self._ids([stale.id for stale in listed])
        return set(self._rendered(self._lock_all, count).rows(lane, ids))

    def _lock_all(self, count: int) -> Any:
        query = self._read_again(count)
        if isinstance(plain_of(self.database), peewee.SqliteDatabase):
            return query
        return query.for_update(skip_locked=True)

    def _mark_all(self, count: int, crashed: bool) -> Any:
        marked = self._marked(parameter("backoff"), int(crashed), parameter("due_at"))
        return marked.where(self._among(count))

    def _marked(self, backoff: Any, crashes: Any, due_at: Any) -> Any:
        audit = self.audit
        return audit.update(
            state=PENDING,
            enqueue_count=audit.enqueue_count + 1,
            crash_count=audit.crash_count + crashes,
            backoff=backoff,
            enqueued_at=None,
            due_at=due_at,
        )

    def confirm_all(self, pushed: Sequence[tuple[Marked, str | None]]) -> None:
        """The messages are with the broker, each under the id that it has there.

        One that somebody holds locked stays as it was marked, and is sent once more after its push
        lease, if it was not to claim it.
        """
        rows = [
            (marked.stale.id, marked.stale.epoch, instant(marked.starts_at), broker_message_id)
            for marked, broker_message_id in pushed
        ]
        due_at = instant(pushed[0][0].due_at)
        if self.takes_arrays:
            lists = {"due_at": due_at, **_lists(_PUSHED, rows)}
            confirm = self._rendered(self._confirm_arrays)
            confirmed = self.connections.run(lambda lane: confirm.rows(lane, lists))
            done = {each for [each] in confirmed}
            self._confirm_locked([each for each in pushed if each[0].stale.id not in done], due_at)
            return
        same = padded(rows, MOST)
        values = [_numbered(name, each) for name, each in _lists(_PUSHED, same).items()]
        try:
            self._write(self._confirm_cases, len(same), due_at=due_at, **ChainMap(*values))
        except AuditLocked:
            for marked, broker_message_id in pushed:
                with suppress(AuditLocked):
                    self.confirm(marked, broker_message_id)

    def _confirm_arrays(self) -> Any:
        rows, of_one = arrays(_PUSHED)
        guard = {"id": of_one["id"], "epoch": of_one["epoch"], **self._is_marked()}
        # Who claims many locks them in another order, and leaves nothing to confirm.
        free = self._free(rows, of_one, guard)
        confirmed = self._confirmed({name: getattr(free.c, name) for name in _PUSHED})
        return confirmed.from_(free).where(self.audit.id == free.c.id).returning(self.audit.id)

    def _confirm_locked(self, passed_by: Sequence[tuple[Marked, str | None]], due_at: int) -> None:
        """Most of them are claimed by now; a monitor that lost the mark may have kept one locked for a moment."""
        if not passed_by:
            return
        count, ids = self._ids([marked.stale.id for marked, _ in passed_by])
        select = self._rendered(self._still_marked, count)
        left = self.connections.run(lambda lane: select.rows(lane, {"due_at": due_at, **ids}))
        for marked, broker_message_id in passed_by:
            if (marked.stale.id,) in left:
                with suppress(AuditLocked):
                    self.confirm(marked, broker_message_id)

    def _still_marked(self, count: int) -> Any:
        marked = _equal(self.audit, self._is_marked())
        return self.audit.select(self.audit.id).where(self._among(count), *marked)

    def _confirm_cases(self, count: int) -> Any:
        audit = self.audit
        of_one = {
            name: peewee.Case(
                audit.id, [(parameter(f"id{n}"), parameter(f"{name}{n}")) for n in range(count)]
            )
            for name in _PUSHED
        }
        guard = {"epoch": of_one["epoch"], **self._is_marked()}
        return self._confirmed(of_one).where(self._among(count), *_equal(audit, guard))

    def _is_marked(self) -> dict[str, Any]:
        return {"state": PENDING, "due_at": parameter("due_at")}

    def _confirmed(self, one: Mapping[str, Any]) -> Any:
        audit = self.audit
        return audit.update(
            due_at=one["starts_at"] + audit.job_timeout + audit.backoff,
            enqueued_at=one["starts_at"],
            broker_message_id=one["broker_message_id"],
        )

    def _read_again(self, count: int, *columns: Any) -> Any:
        audit = self.audit
        as_read = [getattr(audit, name) for name in _AS_READ]
        return audit.select(*as_read, *columns).where(self._among(count))

    def _free(self, rows: Any, of_one: Mapping[str, Any], guard: Mapping[str, Any]) -> Any:
        """Those of *rows* whose audits are as the *guard* says and were locked by nobody; they are locked now."""
        audit = self.audit.alias("audit")
        columns = [column.alias(name) for name, column in of_one.items()]
        query = peewee.Select([audit, rows], columns).where(*_equal(audit, guard))
        return query.for_update(of=audit, skip_locked=True).alias("free")

    def _among(self, count: int) -> Any:
        """Whose ids are among the values of :meth:`_ids`."""
        if self.takes_arrays:
            return self.audit.id == peewee.fn.ANY(parameter("ids").cast("bigint[]"))
        return self.audit.id.in_([parameter(f"id{number}") for number in range(count)])

    def _ids(self, ids: list[int]) -> tuple[int, dict[str, Any]]:
        if self.takes_arrays:
            return 0, {"ids": ids}
        same = padded(ids, MOST)
        return len(same), _numbered("id", same)


def as_read(stale: Stale) -> tuple[Any, ...]:
    """What a monitor's guard compares, in the terms of the database."""
    return stale.id, stale.state, stale.epoch, instant(stale.due_at), stale.enqueue_count


def _equal(audit: Any, guard: Mapping[str, Any]) -> list[Any]:
    return [getattr(audit, name) == value for name, value in guard.items()]


def _lists(names: Iterable[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """A list for each column."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _numbered(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}{number}": value for number, value in enumerate(values)}


def transaction(lane: Any) -> Any:
    """A transaction that is sure of what it reads."""
    # SQLite's other transactions take their lock too late to be sure of what they have read.
    return lane.atomic("IMMEDIATE") if isinstance(lane, peewee.SqliteDatabase) else lane.atomic()
