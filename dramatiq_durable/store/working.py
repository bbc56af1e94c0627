"""The worker's transitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import peewee

from ..lanes import plain_of
from ..models import CANCELLED, COMPLETED, DEAD, OPEN, PENDING, RUNNING, Audit
from .base import Base, Copy, Held, chunks, error_text, microseconds, of_holds
from .rendering import padded, parameter

# The guard of many holds is a chain of ORs, whose length SQLite limits to 1000.
HOLDS_PER_STATEMENT = 100


class Working(Base):
    def claim(
        self,
        message_id: str,
        epoch: int,
        claim_id: str,
        *,
        parent: str | None = None,
        worker: str,
        lease: timedelta | None = None,
        enqueued_at: int | None = None,
    ) -> Held | None:
        """Take the job of a copy that carries *epoch* and, if it is a retry, its *parent*'s claim_id.

        The parent's copy proves that its holder gave the job up, even where the
        release could not be written.  A *lease* replaces the one that the sender
        had in mind, for it is this worker that will renew it.
        *enqueued_at*, in microseconds since 1970, is the copy's own, where it has one: of several
        copies this may be an older one than the row speaks of, and tells how far its queue has come.

        Returns:
          None when the audit is not this copy's to claim, or is missing.
        """
        held = Held(message_id, epoch + 1, claim_id)
        claimed = self._write(
            self._claim,
            message_id=message_id,
            epoch=epoch,
            before=epoch - 1,
            token=held.token,
            claim_id=claim_id,
            parent=parent,
            worker=worker,
            lease=None if lease is None else microseconds(lease),
            enqueued_at=enqueued_at,
        )
        # Without a row the answer to an earlier try may have been lost.
        return held if claimed or self.holds(held) else None

    def _claim(self) -> Any:
        audit = self.audit
        takes = (audit.state == PENDING) & (audit.epoch == parameter("epoch"))
        takes |= (
            (audit.state == RUNNING)
            & (audit.epoch == parameter("before"))
            & (audit.claim_id == parameter("parent"))
        )
        lease = peewee.fn.COALESCE(parameter("lease"), audit.lease)
        came = peewee.Case(None, [(audit.enqueued_at.is_null(False), audit.created_at)], None)
        return audit.update(
            state=RUNNING,
            epoch=parameter("token"),
            claim_id=parameter("claim_id"),
            start_count=audit.start_count + 1,
            started_at=self.now(),
            enqueued_at=peewee.fn.COALESCE(parameter("enqueued_at"), came),
            worker=parameter("worker"),
            lease=lease,
            due_at=self._lease_end(lease),
        ).where(audit.message_id == parameter("message_id"), takes)

    def find(self, message_id: str) -> Audit | None:
        """The audit of a message, without its payload."""
        fields = [f for f in self.audit._meta.sorted_fields if f.name != "payload"]
        rows = self._execute(self.audit.select(*fields).where(self.audit.message_id == message_id))
        return rows[0] if rows else None

    def holds(self, held: Held) -> bool:
        return not self._lost([held], (RUNNING,))

    def heartbeat(self, holds: Sequence[Held]) -> set[Held]:
        """Renew the leases of *holds*, in one statement.

        Returns:
          Those that are lost: another worker has claimed the job, or it was cancelled.
        """
        lost: set[Held] = set()
        for part in chunks(holds, HOLDS_PER_STATEMENT):
            same = padded(part, HOLDS_PER_STATEMENT)
            renewed = self._write(self._heartbeat, len(same), **of_holds(same))
            if renewed != len(part):
                lost |= self._there(self._lost(part, (RUNNING,)))
        return lost

    def _heartbeat(self, count: int) -> Any:
        return self.audit.update(due_at=self._lease_end(self.audit.lease)).where(
            self.audit.state == RUNNING, self._any_of(count)
        )

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
            same = padded(part, HOLDS_PER_STATEMENT)
            if self._write(self._complete, len(same), **of_holds(same)) != len(part):
                refused |= self._lost(part, (COMPLETED,))
        return refused

    def _complete(self, count: int) -> Any:
        return self._completion().where(self._any_of(count))

    def complete_in(self, transaction: peewee.Database, held: Held) -> bool:
        """Close the audit as part of the caller's *transaction*.

        Returns:
          False when it is no longer the holder's to close.
        """
        mine = self._held_by(held)
        if isinstance(plain_of(self.database), peewee.MySQLDatabase):
            # By its id: InnoDB would lock the gap beside the message_id too, and so keep others from sending.
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

    def _lease_end(self, lease: Any) -> Any:
        return self.now() + self._lease_length(lease)

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

    def _lost(self, holds: Sequence[Held], states: Sequence[str]) -> set[Held]:
        audit = self.audit
        rows = self._execute(
            audit.select(audit.message_id, audit.epoch, audit.claim_id)
            .where(
                audit.state.in_(states),
                audit.message_id.in_([held.message_id for held in holds]),
            )
            .tuples()
        )
        return set(holds) - {Held(*row) for row in rows}
