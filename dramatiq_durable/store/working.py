"""The worker's transitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import peewee

from ..lanes import plain_of
from ..models import CANCELLED, COMPLETED, DEAD, OPEN, PENDING, RUNNING, Audit
from .base import Copy, Held, chunks, error_text, microseconds, of_holds
from .claiming import Claiming
from .rendering import arrays, padded, parameter

# The guard of many holds is a chain of ORs, whose length SQLite limits to 1000.
HOLDS_PER_STATEMENT = 100


#: The values of a hold, and their types in PostgreSQL.
_TYPES = {"message_id": "text", "token": "bigint", "claim_id": "text"}


class Working(Claiming):
    def find(self, message_id: str) -> Audit | None:
        """The audit of a message, without its payload."""
        fields = [f for f in self.audit._meta.sorted_fields if f.name != "payload"]
        rows = self._execute(self.audit.select(*fields).where(self.audit.message_id == message_id))
        return rows[0] if rows else None

    def heartbeat(self, holds: Sequence[Held]) -> set[Held]:
        """Renew the leases of *holds*, in one statement.

        Returns:
          Those that are lost: another worker has claimed the job, or it was cancelled.
        """
        lost: set[Held] = set()
        for part in chunks(holds, HOLDS_PER_STATEMENT):
            renewed = self._write_all("_heartbeat", part)
            if renewed != len(part):
                lost |= self._there(self._lost(part, (RUNNING,)))
        return lost

    def _heartbeat(self) -> Any:
        return self.audit.update(due_at=self._lease_end(self.audit.lease)).where(
            self.audit.state == RUNNING
        )

    def _write_all(self, update: str, holds: Sequence[Held]) -> int:
        """Run the *update* that the method of that name makes for all of *holds*."""
        if self.takes_arrays:
            lists = dict(zip(_TYPES, map(list, zip(*holds, strict=True)), strict=True))
            return self._write(self._of_arrays, update, **lists)
        same = padded(holds, HOLDS_PER_STATEMENT)
        return self._write(self._of_any, update, len(same), **of_holds(same))

    def _of_arrays(self, update: str) -> Any:
        audit = self.audit
        rows, one = arrays(_TYPES)
        return (
            getattr(self, update)()
            .from_(rows)
            .where(
                audit.message_id == one["message_id"],
                audit.epoch == one["token"],
                audit.claim_id == one["claim_id"],
            )
        )

    def _of_any(self, update: str, count: int) -> Any:
        return getattr(self, update)().where(self._any_of(count))

    def _there(self, holds: set[Held]) -> set[Held]:
        """Those whose audits are not missing: what a failover has lost is nobody else's."""
        ids = [held.message_id for held in holds]
        if not ids:
            return holds
        query = self.audit.select(self.audit.message_id).where(self.audit.message_id.in_(ids))
        there = {row[0] for row in self._execute(query.tuples())}
        return {held for held in holds if held.message_id in there}

    def complete(self, holds: Sequence[Held]) -> set[Held]:
        """Close the audits of *holds*, in one statement; their jobs will never be enqueued again.

        A pending audit is taken back from the monitor, for nobody has claimed it since.

        Returns:
          Those that are no longer the holder's to close: another worker has
          claimed the job since, or it was cancelled.
        """
        refused: set[Held] = set()
        for part in chunks(holds, HOLDS_PER_STATEMENT):
            if self._write_all("_completion", part) != len(part):
                refused |= self._lost(part, (COMPLETED,))
        return refused

    def complete_in(self, transaction: peewee.Database, held: Held) -> bool:
        """Close the audit as part of the caller's *transaction*.

        Returns:
          False when it is no longer the holder's to close.
        """
        mine = self._held_by(held)
        if not isinstance(plain_of(self.database), peewee.PostgresqlDatabase):
            # By its id: InnoDB would lock the gap beside the message_id too, and so keep others from sending.
            # PostgreSQL may be behind a pool that has no second connection while the transaction has one.
            query = self.audit.select(self.audit.id).where(self.audit.message_id == held.message_id)
            ids = self._execute(query.tuples())
            if not ids:
                return False
            mine &= self.audit.id == ids[0][0]
        return bool(self._completion().where(mine).execute(transaction) == 1)

    def _completion(self) -> Any:
        return self.audit.update(
            state=COMPLETED, due_at=None, finished_at=self.now(), payload=b""
        ).where(self.audit.state.in_(OPEN))

    def release(
        self,
        held: Held,
        error: BaseException | str,
        *,
        retry_delay: timedelta | None = None,
        broker_message_id: str | None = None,
    ) -> bool:
        """Give the job up after a failure.

        It is due after the backoff, or, when Dramatiq's Retries sends the next
        copy in *retry_delay*, when that copy must be taken for lost.
        """
        released = self._write(
            self._release,
            retry_delay is not None,
            **of_holds([held]),
            epoch=held.token + 1,
            error=error_text(error),
            broker_message_id=broker_message_id,
            retry_delay=None if retry_delay is None else microseconds(retry_delay),
        )
        return released == 1

    def _release(self, is_retried: bool) -> Any:
        wait = self.audit.backoff
        enqueued_at = None
        if is_retried:
            wait = self.audit.backoff + self.audit.job_timeout + parameter("retry_delay")
            enqueued_at = self.now() + parameter("retry_delay")
        return self.audit.update(
            state=PENDING,
            epoch=parameter("epoch"),
            failure_count=self.audit.failure_count + 1,
            last_error=parameter("error"),
            enqueued_at=enqueued_at,
            broker_message_id=parameter("broker_message_id"),
            due_at=self.now() + wait,
        ).where(self._held(), self.audit.state == RUNNING)

    def requeue(self, held: Held) -> bool:
        """Give the job back, to be run again in the monitor's next pass as if it were new."""
        return self._changed(
            self.audit.update(
                state=PENDING,
                epoch=held.token + 1,
                requeue_count=self.audit.requeue_count + 1,
                enqueue_count=0,
                crash_count=0,
                enqueued_at=None,
                due_at=self.now(),
                scheduled_at=self.now(),
            ).where(self._held_by(held), self.audit.state == RUNNING)
        )

    def dead(self, holder: Held | Copy, error: BaseException | str) -> bool:
        """End the job without completion; its payload stays, and an operator may retry it.

        The *holder* is the worker that runs it, or a copy that nobody has claimed.
        """
        return self._changed(
            self.audit.update(
                state=DEAD, due_at=None, finished_at=self.now(), last_error=error_text(error)
            ).where(self._belongs_to(holder))
        )

    def abort(self, holder: Held | Copy) -> bool:
        """End the job because another middleware skipped it on purpose."""
        return self._changed(
            self.audit.update(
                state=CANCELLED,
                epoch=self.audit.epoch + 1,
                due_at=None,
                finished_at=self.now(),
            ).where(self._belongs_to(holder))
        )

    def _belongs_to(self, holder: Held | Copy) -> Any:
        if isinstance(holder, Held):
            return self._held_by(holder) & self.audit.state.in_(OPEN)
        return (
            (self.audit.message_id == holder.message_id)
            & (self.audit.state == PENDING)
            & (self.audit.epoch == holder.epoch)
        )

    def _any_of(self, count: int) -> Any:
        """The audits of as many holds; see :func:`of_holds`."""
        if count == 1:
            return self._held()
        # The ids alone let the database use its index whatever it makes of the chain.
        ids = self.audit.message_id.in_([parameter(f"message_id{n}") for n in range(count)])
        # Written flat, for SQLite's parser stops at a hundred nested parentheses.
        return ids & peewee.NodeList(
            [self._held(number) for number in range(count)], glue=" OR ", parens=True
        )
