"""The sender's transition of a message with a ``unique_key``, of which at most one may be open.

The column has a unique index, so that it is the database that elects one of several senders.  A finished
audit keeps its key, and no worker or monitor knows of it; the next sender of that key takes it away.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import peewee

from ..errors import DurableError
from ..lanes import plain_of
from ..models import FINISHED, OPEN
from .base import NewAudit
from .rendering import parameter
from .sending import Sending

#: In each of them somebody else was faster: that many do not come together.
TURNS = 20


class _Holder(NamedTuple):
    """The audit that has a key."""

    message_id: str
    state: str


class Unique(Sending):
    def enqueue_unless_open(
        self, new: NewAudit, *, epoch: int | None = None, transaction: peewee.Database | None = None
    ) -> str | None:
        """Insert the audit of a message as ``enqueue`` does, unless another that is open has its key.

        Returns:
          None when it is inserted, else the message_id of the audit that is there: that other one, or
          the message's own, which stays as it is.

        Raises:
          DurableError: A constraint of the table refuses the audit.
        """
        if new.unique_key is None:
            inserted = self.enqueue(new, epoch=epoch, transaction=transaction)
            return None if inserted else new.message_id
        digest = self._digest(new)
        holder = self._holder_before(digest, transaction)
        for _ in range(TURNS):
            if holder is not None:
                if holder.message_id == new.message_id or holder.state in OPEN:
                    return holder.message_id
                self._take_key(holder, digest, transaction)
            if self._inserted(new, epoch, transaction, digest):
                return None
            holder = self._holder(digest, transaction)
            if holder is None and self._has(new.message_id, transaction):
                return new.message_id
        raise DurableError("a constraint on a column of the table of audits refuses it")

    def adopt(self, new: NewAudit, epoch: int) -> None:
        """Insert the audit of a copy that has none; its key stays with another that is open."""
        holder = self.enqueue_unless_open(new, epoch=epoch)
        if holder not in {None, new.message_id}:
            self.enqueue(dataclasses.replace(new, unique_key=None), epoch=epoch)

    def _digest(self, new: NewAudit) -> str:
        # A key may be long, or personal, and collations take some for equal that are not.
        names = json.dumps([self.namespace, new.actor_name, new.unique_key])
        return hashlib.sha256(names.encode()).hexdigest()

    def _holder_before(self, digest: str, transaction: peewee.Database | None) -> _Holder | None:
        """The audit that has the key already, where an INSERT must not be what finds it.

        One that meets a key of MySQL's or MariaDB's keeps the gap before it locked, and the read after
        that the audit, which its worker could not write until the caller's transaction ends.
        """
        if transaction is None or not self._is_mysql:
            return None
        holder = self._holder(digest, None)
        if holder is None or holder.state in FINISHED:
            return holder
        # A job may have completed itself in this transaction, where nobody else sees it yet.
        seen = self._state(holder.message_id, transaction)
        return holder._replace(state=seen) if seen in FINISHED else holder

    @property
    def _is_mysql(self) -> bool:
        return isinstance(plain_of(self.database), peewee.MySQLDatabase)

    def _holder(self, digest: str, transaction: peewee.Database | None) -> _Holder | None:
        # MySQL's and MariaDB's other reads show what was there when the transaction began, where PostgreSQL has
        # refused the INSERT.
        locking = transaction is not None and self._is_mysql
        found = self._found(self._having_key, transaction, locking, unique_key=digest)
        return _Holder(*found[0]) if found else None

    def _having_key(self, locking: bool) -> Any:
        audit = self.audit
        query = audit.select(audit.message_id, audit.state).where(
            audit.unique_key == parameter("unique_key")
        )
        return query.for_update() if locking else query

    def _state(self, message_id: str, transaction: peewee.Database | None) -> str | None:
        found = self._found(self._having_id, transaction, message_id=message_id)
        return found[0][0] if found else None

    def _having_id(self) -> Any:
        return self.audit.select(self.audit.state).where(
            self.audit.message_id == parameter("message_id")
        )

    def _found(
        self,
        build: Callable[..., Any],
        transaction: peewee.Database | None,
        *shape: Hashable,
        **values: Any,
    ) -> list[tuple[Any, ...]]:
        query = self._rendered(build, *shape)
        if transaction is not None:
            return query.rows(transaction, values)
        return self.connections.run(lambda lane: query.rows(lane, values))

    def _take_key(self, holder: _Holder, digest: str, transaction: peewee.Database | None) -> None:
        """Take its key away from an audit that is finished still."""
        values = {"message_id": holder.message_id, "unique_key": digest}
        self._run(self._rendered(self._key_taken), values, transaction)

    def _key_taken(self) -> Any:
        return self.audit.update(unique_key=None).where(
            self.audit.message_id == parameter("message_id"),
            self.audit.unique_key == parameter("unique_key"),
            self.audit.state.in_(FINISHED),
        )
