"""The sender's transitions, of many audits at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import peewee

from ..errors import DurableError
from ..models import PENDING
from .base import PUSH_LEASE, NewAudit, microseconds
from .many import MOST, transaction
from .rendering import Rendered, arrays, listed, padded, parameter
from .sending import Sending

#: What is of each message alone, and its type in PostgreSQL.
_OF_EACH = {
    "message_id": "text",
    "broker_message_id": "text",
    "payload": "bytea",
    "signature": "text",
}

#: A statement, and its values.
Insert: TypeAlias = "tuple[Rendered, dict[str, Any]]"


class Bulk(Sending):
    """Each takes at most :data:`MOST`."""

    def together(self, work: Callable[[peewee.Database], None]) -> None:
        """Do *work* in one transaction of our own, and again when it met another one's."""

        def attempt(lane: peewee.Database) -> None:
            with transaction(lane):
                work(lane)

        self.connections.run(attempt)

    def enqueue_all(
        self, news: Sequence[NewAudit], database: peewee.Database, *, is_out: bool
    ) -> set[str]:
        """Insert the audits of messages in the transaction that *database* is in, but for those that have one.

        *is_out*: they are pushed right after its commit, so that they are due as after ``enqueue``;
        else after a push lease.

        Returns:
          The message_ids of those that had their audits already.

        Raises:
          DurableError: A constraint of the table refuses one of them.
        """
        if self.has_own_columns or any(new.columns for new in news):
            return {new.message_id for new in news if not self.enqueue(new, transaction=database)}
        statements = (self._by_arrays if self.takes_arrays else self._by_rows)(news, is_out)
        count = 0
        for insert, values in statements:
            count += self.connections.run_in(database, functools.partial(insert.run, values=values))
        if count == len(news):
            return set()
        return self._older({new.message_id for new in news}, count, database)

    def _by_rows(self, news: Sequence[NewAudit], is_out: bool) -> list[Insert]:
        # A large payload that is repeated may be more than a server takes.
        same = padded(news, MOST, min(news, key=lambda new: len(new.payload)))
        values = {
            f"{name}{number}": value
            for number, new in enumerate(same)
            for name, value in self._values_of(new, is_out).items()
        }
        return [(self._rendered(self._insert_rows, len(same), is_out), values)]

    def _by_arrays(self, news: Sequence[NewAudit], is_out: bool) -> list[Insert]:
        """A statement for all that differ in nothing else."""
        groups: dict[Hashable, list[dict[str, Any]]] = {}
        for new in news:
            values = self._values_of(new, is_out)
            key = tuple(value for name, value in values.items() if name not in _OF_EACH)
            groups.setdefault(key, []).append(values)
        insert = self._rendered(self._insert_arrays, is_out)
        return [(insert, {**group[0], **listed(group, _OF_EACH)}) for group in groups.values()]

    def _values_of(self, new: NewAudit, is_out: bool) -> dict[str, Any]:
        return self._values(new, 0, self._inserted_due_in(new, not is_out))

    def _insert_rows(self, count: int, is_out: bool) -> Any:
        rows = [self._row(is_out, str(number)) for number in range(count)]
        return self.audit.insert_many(rows).on_conflict_ignore().returning()

    def _insert_arrays(self, is_out: bool) -> Any:
        rows, of_one = arrays(_OF_EACH)
        row = {**self._row(is_out), **of_one}
        select = peewee.Select([rows], list(row.values()))
        fields = [self.audit._meta.fields[name] for name in row]
        return self.audit.insert_from(select, fields).on_conflict_ignore().returning()

    def _older(self, ids: set[str], inserted: int, database: peewee.Database) -> set[str]:
        """Those that were there before: all but as many as were *inserted* last."""
        audit = self.audit
        query = audit.select(audit.message_id).where(audit.message_id.in_(ids)).tuples()
        newest = query.order_by(audit.created_at.desc(), audit.id.desc())
        found = [row[0] for row in newest.execute(database)]
        missing = ids - set(found)
        if missing and self._is_callers(database):
            # A transaction may not see what others have committed since it began.
            missing -= {row[0] for row in self._execute(query)}
        if missing:
            # What is ignored is a conflict of any column.
            raise DurableError("a constraint on a column of the table of audits refuses an audit")
        return ids - set(found[:inserted])

    def begin_pushes(self, news: Sequence[NewAudit], *, was_out: bool) -> set[str]:
        """Elect the sender to push these messages, which were committed a while ago; each as ``begin_push``.

        Returns:
          The message_ids of those that are the sender's: there is such an audit, and no monitor was first.
        """
        elected: set[str] = set()
        for delay, late, ids in _groups(news):
            inserted = late if was_out else PUSH_LEASE
            changed = self._write_all_of(
                self._begin_pushes,
                ids,
                due_in=microseconds(delay + PUSH_LEASE),
                inserted_due_in=microseconds(delay + inserted),
            )
            elected.update(ids if changed == len(ids) else self._with_sender(ids, delay))
        return elected

    def _begin_pushes(self, count: int) -> Any:
        audit = self.audit
        return audit.update(due_at=self.now() + parameter("due_in")).where(
            self._of_sender(count), audit.due_at == audit.created_at + parameter("inserted_due_in")
        )

    def _with_sender(self, ids: Sequence[str], delay: timedelta) -> list[str]:
        audit = self.audit
        query = audit.select(audit.message_id).where(
            audit.message_id.in_(ids),
            self._is_senders(),
            # Not what a monitor has marked, could not push, and will soon try again.
            audit.due_at > self.now(delay + PUSH_LEASE / 2),
        )
        return [row[0] for row in self._execute(query.tuples())]

    def all_pushed(self, news: Sequence[NewAudit]) -> None:
        """The messages that the sender was elected to push are with the broker."""
        for delay, late, ids in _groups(news):
            self._write_all_of(self._all_pushed, ids, due_in=microseconds(delay + late))

    def _all_pushed(self, count: int) -> Any:
        return self.audit.update(
            due_at=self.now() + parameter("due_in"), enqueued_at=self.now()
        ).where(self._of_sender(count))

    def all_refused(self, news: Sequence[NewAudit]) -> None:
        """Make the audits due at their start, for the broker did not take the messages."""
        for delay, _, ids in _groups(news):
            self._write_all_of(self._all_refused, ids, due_in=microseconds(delay))

    def _all_refused(self, count: int) -> Any:
        return self.audit.update(
            due_at=self.now() + parameter("due_in"), enqueue_count=0, enqueued_at=None
        ).where(self._of_sender(count))

    def _write_all_of(self, build: Callable[[int], Any], ids: Sequence[str], **values: Any) -> int:
        same = padded(ids, MOST)
        numbered = {f"message_id{number}": each for number, each in enumerate(same)}
        return self._write(build, len(same), **numbered, **values)

    def _of_sender(self, count: int) -> Any:
        ids = [parameter(f"message_id{number}") for number in range(count)]
        return self.audit.message_id.in_(ids) & self._is_senders()

    def _is_senders(self) -> Any:
        """No monitor has marked it, and no copy of it was claimed."""
        audit = self.audit
        return (audit.state == PENDING) & (audit.epoch == 0) & (audit.enqueue_count == 1)


def _groups(news: Sequence[NewAudit]) -> list[tuple[timedelta, timedelta, list[str]]]:
    """Those that are due alike: after which delay, and how long after that."""
    groups: dict[tuple[timedelta, timedelta], list[str]] = {}
    for new in news:
        groups.setdefault((new.delay, new.job_timeout + new.backoff), []).append(new.message_id)
    return [(*key, list(dict.fromkeys(ids))) for key, ids in groups.items()]
