"""A worker takes jobs: of one copy, or of many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import peewee

from ..connections import RESERVED_REPETITIONS
from ..models import PENDING, RUNNING
from .base import Base, Held, microseconds
from .rendering import arrays, listed, padded, parameter

#: Claims of a statement, for which the 999 variables of older SQLites are enough.
CLAIMS = 32


@dataclass(frozen=True)
class Claim:
    """What :meth:`Claiming.claim` is told, durations and moments in microseconds."""

    message_id: str
    epoch: int
    claim_id: str
    parent: str | None
    worker: str
    lease: int | None
    enqueued_at: int | None

    @property
    def held(self) -> Held:
        return Held(self.message_id, self.epoch + 1, self.claim_id)


#: The values of a claim, and their types in PostgreSQL.
_TYPES = {
    "message_id": "text",
    "epoch": "bigint",
    "claim_id": "text",
    "parent": "text",
    "worker": "text",
    "lease": "bigint",
    "enqueued_at": "bigint",
    "before": "bigint",
    "token": "bigint",
}


class Claiming(Base):
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
        length = None if lease is None else microseconds(lease)
        claim = Claim(message_id, epoch, claim_id, parent, worker, length, enqueued_at)
        return claim.held if self.claim_all([claim]) else None

    def _claim(self) -> Any:
        of_one = {name: parameter(name) for name in _TYPES}
        return self._claimed(of_one).where(
            self.audit.message_id == of_one["message_id"], self._takes(of_one)
        )

    def _takes(self, one: Mapping[str, Any]) -> Any:
        audit = self.audit
        return ((audit.state == PENDING) & (audit.epoch == one["epoch"])) | (
            (audit.state == RUNNING)
            & (audit.epoch == one["before"])
            & (audit.claim_id == one["parent"])
        )

    def _claimed(self, one: Mapping[str, Any]) -> Any:
        audit = self.audit
        lease = peewee.fn.COALESCE(one["lease"], audit.lease)
        came = peewee.Case(None, [(audit.enqueued_at.is_null(False), audit.created_at)], None)
        return audit.update(
            state=RUNNING,
            epoch=one["token"],
            claim_id=one["claim_id"],
            start_count=audit.start_count + 1,
            started_at=self.now(),
            enqueued_at=peewee.fn.COALESCE(one["enqueued_at"], came),
            worker=one["worker"],
            lease=lease,
            due_at=self._lease_end(lease),
        )

    def claim_all(self, claims: Sequence[Claim]) -> set[Held]:
        """Take the jobs of at most :data:`CLAIMS` copies, no two of one message, in one statement.

        Returns:
          What is held now.

        Raises:
          AuditLocked: Another transaction holds one of the rows; none is claimed.
        """
        held = {claim.held for claim in claims}
        alone = len(claims) == 1
        count = self._claim_it(claims[0]) if alone else self._claim_together(claims)
        # Without a row the answer to an earlier try may have been lost.
        return held if count == len(held) else held - self._lost(list(held), (RUNNING,))

    def _claim_it(self, claim: Claim) -> int:
        return self._write(self._claim, **_values(claim))

    def _claim_together(self, claims: Sequence[Claim]) -> int:
        # In one order, or two processes that claim the same would wait for each other.
        values = [_values(claim) for claim in sorted(claims, key=lambda each: each.message_id)]
        if self.takes_arrays:
            statement = self._rendered(self._claim_arrays)
            given: dict[str, Any] = {**listed(values, _TYPES)}
        else:
            same = padded(values, CLAIMS)
            statement = self._rendered(self._claim_cases, len(same))
            given = {
                f"{name}{number}": value
                for number, each in enumerate(same)
                for name, value in each.items()
            }
        # Who waits for a lock lets the others wait; each can do that by itself.
        return self.connections.run(lambda lane: statement.run(lane, given), RESERVED_REPETITIONS)

    def _claim_arrays(self) -> Any:
        rows, of_one = arrays(_TYPES)
        query = self._claimed(of_one).from_(rows)
        return query.where(self.audit.message_id == of_one["message_id"], self._takes(of_one))

    def _claim_cases(self, count: int) -> Any:
        ids = [parameter(f"message_id{number}") for number in range(count)]
        of_one = {
            name: peewee.Case(
                self.audit.message_id,
                [(ids[number], parameter(f"{name}{number}")) for number in range(count)],
            )
            for name in _TYPES
        }
        query = self._claimed(of_one)
        return query.where(self.audit.message_id.in_(ids), self._takes(of_one))

    def holds(self, held: Held) -> bool:
        return not self._lost([held], (RUNNING,))

    def _lease_end(self, lease: Any) -> Any:
        return self.now() + self._lease_length(lease)

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


def _values(claim: Claim) -> dict[str, Any]:
    return {**vars(claim), "before": claim.epoch - 1, "token": claim.epoch + 1}
