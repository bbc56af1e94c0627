"""The sender's transitions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import peewee

from ..errors import DurableError
from ..lanes import plain_of
from ..models import PENDING, Audit
from .base import PUSH_LEASE, Base, NewAudit, microseconds
from .rendering import Rendered, parameter

_AUDITS: Any = Audit._meta.fields


class Sending(Base):
    def enqueue(
        self, new: NewAudit, *, epoch: int | None = None, transaction: peewee.Database | None = None
    ) -> bool:
        """Insert the audit of a message that is about to be pushed.

        Inside the caller's *transaction* the push may come any time later, or
        never, so that the audit is due after a push lease.  An *epoch* is that of a copy
        which is adopted; nobody knows when that was enqueued.

        Returns:
          False when the message has its audit already, which stays as it is.

        Raises:
          DurableError: A constraint of the table refuses the audit.
        """
        inserted = self._inserted(new, epoch, transaction)
        # What is ignored is a conflict of any column, and on SQLite whatever is NULL but must not be.
        if not inserted and not self._has(new.message_id, transaction):
            raise DurableError("a constraint on a column of the table of audits refuses it")
        return inserted

    def _inserted(
        self,
        new: NewAudit,
        epoch: int | None,
        transaction: peewee.Database | None,
        digest: str | None = None,
    ) -> bool:
        is_out = transaction is None and epoch is None
        values = self._values(new, epoch or 0, self._inserted_due_in(new, transaction is not None))
        values["unique_key"] = digest
        has_key = digest is not None
        if new.columns or self.has_own_columns:
            # Values and defaults of a subclass's columns may be expressions.
            insert = Rendered(plain_of(self.database), self._insert(is_out, has_key, **new.columns))
        else:
            insert = self._rendered(self._insert, is_out, has_key)
        return self._run(insert, values, transaction) == 1

    def _run(
        self, write: Rendered, values: Mapping[str, Any], transaction: peewee.Database | None
    ) -> int:
        """Run it in the caller's *transaction*, or without one on a connection of our own."""
        if transaction is None:
            return self.connections.run(lambda lane: write.run(lane, values))
        return self.connections.run_in(transaction, lambda lane: write.run(lane, values))

    @property
    def has_own_columns(self) -> bool:
        """Whether the table has columns that :class:`Audit` has not."""
        return len(self.audit._meta.fields) > len(_AUDITS)

    def _values(self, new: NewAudit, epoch: int, due_in: int) -> dict[str, Any]:
        """The values of :meth:`_row`."""
        return {
            "namespace": self.namespace,
            "message_id": new.message_id,
            "actor_name": new.actor_name,
            "queue_name": new.queue_name,
            "epoch": epoch,
            "starts_in": microseconds(new.delay),
            "due_in": due_in,
            "job_timeout": microseconds(new.job_timeout),
            "lease": microseconds(new.lease),
            "backoff": microseconds(new.backoff),
            "broker_message_id": new.broker_message_id,
            "payload": self.audit.payload.db_value(new.payload),
            "signature": None if self._signer is None else self._signer.sign(new),
        }

    def _insert(self, is_out: bool, has_key: bool, **own: Any) -> Any:
        # Without a key the column is not named, and its index has no such row where the database can do that.
        key = {"unique_key": parameter("unique_key")} if has_key else {}
        query = self.audit.insert(**own, **key, **self._row(is_out))
        # Where the database would return the id, SQLite counts no rows.
        return query.on_conflict_ignore().returning()

    def _row(self, is_out: bool, number: str = "") -> dict[str, Any]:
        """A new audit; the names of its values end in *number*."""
        named = ("namespace", "message_id", "actor_name", "queue_name", "epoch", "job_timeout", "lease",
                 "backoff", "broker_message_id", "payload", "signature")  # fmt: skip
        counts = ("start_count", "crash_count", "failure_count", "requeue_count")
        # Constants are none of the values, whose number in a statement is limited.
        return {
            **{name: parameter(name + number) for name in named},
            **dict.fromkeys(counts, peewee.SQL("0")),
            "state": peewee.SQL(f"'{PENDING}'"),
            "due_at": self.now() + parameter("due_in" + number),
            "scheduled_at": self.now() + parameter("starts_in" + number),
            "created_at": self.now(),
            "enqueued_at": self.now() if is_out else peewee.SQL("NULL"),
            "enqueue_count": peewee.SQL("1"),
        }

    def _has(self, message_id: str, transaction: peewee.Database | None) -> bool:
        query = self.audit.select(self.audit.id).where(self.audit.message_id == message_id).tuples()
        # A transaction may not see what others have committed since it began.  A query keeps what it has found.
        return bool(
            (transaction is not None and list(query.clone().execute(transaction)))
            or ((transaction is None or self._is_callers(transaction)) and self._execute(query))
        )

    def push_refused(self, new: NewAudit, *, in_transaction: bool = False) -> bool:
        """Make the audit due at its start, for the broker did not take the message.

        Refused when the push arrived after all and was claimed, or a monitor marked it.
        """
        return self._changed(
            self.audit.update(due_at=self.now(new.delay), enqueue_count=0, enqueued_at=None).where(
                self._being_pushed(new.message_id)
                if in_transaction
                else self._as_inserted(
                    new.message_id,
                    peewee.Value(self._inserted_due_in(new, False), converter=False),
                )
            )
        )

    def pushed(self, new: NewAudit, broker_message_id: str | None) -> bool:
        """The message of a committed transaction is with the broker."""
        late = self._late(new, False)
        changed = self._write(
            self._pushed,
            message_id=new.message_id,
            due_in=microseconds(new.delay + late),
            broker_message_id=broker_message_id,
        )
        return changed == 1

    def _pushed(self) -> Any:
        return self.audit.update(
            due_at=self.now() + parameter("due_in"),
            enqueued_at=self.now(),
            broker_message_id=parameter("broker_message_id"),
        ).where(self._being_pushed(parameter("message_id")))

    def begin_push(self, new: NewAudit) -> bool:
        """Elect the sender to push the message of a committed transaction.

        Returns:
          False when there is no such audit, for its savepoint was rolled back,
          or when a monitor was first, for the transaction took long.
        """
        changed = self._write(
            self._begin_push,
            message_id=new.message_id,
            due_in=microseconds(new.delay + PUSH_LEASE),
            inserted_due_in=self._inserted_due_in(new, True),
        )
        return changed == 1

    def _begin_push(self) -> Any:
        return self.audit.update(due_at=self.now() + parameter("due_in")).where(
            self._as_inserted(parameter("message_id"), parameter("inserted_due_in"))
        )

    def withdraw(self, message_id: str) -> bool:
        """Delete the audit of a message that another middleware refused to enqueue.

        Nothing of it was pushed, and its sender may enqueue it again.
        """
        return self._changed(
            self.audit.delete().where(
                self.audit.message_id == message_id,
                self.audit.state == PENDING,
                self.audit.epoch == 0,
            )
        )

    def follow(self, message_id: str, epoch: int, broker_message_id: str) -> None:
        """Note under which id the broker keeps the newest copy of the message."""
        self._write(
            self._follow, message_id=message_id, epoch=epoch, broker_message_id=broker_message_id
        )

    def _follow(self) -> Any:
        return self.audit.update(broker_message_id=parameter("broker_message_id")).where(
            self.audit.message_id == parameter("message_id"),
            self.audit.state == PENDING,
            self.audit.epoch == parameter("epoch"),
        )

    def retry_refused(self, message_id: str, epoch: int, delay: timedelta) -> bool:
        """Make a released audit due at its retry, for the broker did not take the retry's copy."""
        count = self.audit.enqueue_count
        released = (
            (self.audit.message_id == message_id)
            & (self.audit.state == PENDING)
            & (self.audit.epoch == epoch)
            & (count > 0)
        )
        found = self._execute(self.audit.select(count).where(released).tuples())
        if not found:
            return False
        # By its value, for a statement whose answer was lost is repeated.
        [before] = found[0]
        return self._changed(
            self.audit.update(
                due_at=self.now(delay), enqueue_count=before - 1, enqueued_at=None
            ).where(released, count == before)
        )

    def _late(self, new: NewAudit, in_transaction: bool) -> timedelta:
        return PUSH_LEASE if in_transaction else new.job_timeout + new.backoff

    def _being_pushed(self, message_id: Any) -> Any:
        return (
            (self.audit.message_id == message_id)
            & (self.audit.state == PENDING)
            & (self.audit.epoch == 0)
            & (self.audit.enqueue_count == 1)
            & self.audit.enqueued_at.is_null()
        )

    def _inserted_due_in(self, new: NewAudit, in_transaction: bool) -> int:
        return microseconds(new.delay + self._late(new, in_transaction))

    def _as_inserted(self, message_id: Any, due_in: Any) -> Any:
        return (
            (self.audit.message_id == message_id)
            & (self.audit.state == PENDING)
            & (self.audit.epoch == 0)
            & (self.audit.due_at == self.audit.created_at + due_in)
        )
