"""Broken transitions, each of which the checker must notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dramatiq_durable import sending
from dramatiq_durable.models import RUNNING
from dramatiq_durable.store import Claim, Held, Store
from dramatiq_durable.store.many import as_read
from dramatiq_durable.underway import AsItIs, FirstSend, push

_store: Any = Store


def apply(name: str) -> None:
    """Break this process's protocol; the empty name breaks nothing."""
    if name:
        MUTANTS[name]()


def complete_without_fence() -> None:
    def complete(store: Any, holds: Sequence[Held]) -> set[Held]:
        ids = [held.message_id for held in holds]
        store._execute(store._completion().where(store.audit.message_id.in_(ids)))
        return set()

    _store.complete = complete


def mark_without_guard() -> None:
    _store._as_read = lambda store, stale: store.audit.id == stale.id
    _store._lock = lambda store, lane, listed: {as_read(stale) for stale in listed}
    _store._elect_by_arrays = _store._elect


def claim_ignores_the_epoch() -> None:
    def claim_all(store: Any, claims: list[Claim]) -> set[Held]:
        audit = store.audit
        for claim in claims:
            changes = {"state": RUNNING, "epoch": claim.epoch + 1, "claim_id": claim.claim_id}
            query = audit.update(due_at=store.now() + claim.lease, **changes)
            store._execute(query.where(audit.message_id == claim.message_id))
        return {claim.held for claim in claims}

    _store.claim_all = claim_all


def audit_after_the_push() -> None:
    def late(broker_push: Any, underway: Any, delay: int | None) -> Any:
        if not isinstance(underway, FirstSend):
            return push(broker_push, underway, delay)
        pushed = push(broker_push, AsItIs(underway.message), delay)
        underway.write(underway.message)
        return pushed

    vars(sending)["push"] = late


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        complete_without_fence,
        mark_without_guard,
        claim_ignores_the_epoch,
        audit_after_the_push,
    )
}
