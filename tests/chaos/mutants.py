"""Broken transitions, each of which the checker must notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from dramatiq_durable import sending
from dramatiq_durable.models import RUNNING
from dramatiq_durable.store import Held, Store
from dramatiq_durable.store.many import key_of
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
    _store._lock = lambda store, lane, listed: {key_of(stale) for stale in listed}


def claim_ignores_the_epoch() -> None:
    def claim(
        store: Any, message_id: str, epoch: int, claim_id: str, *, lease: timedelta, **_: Any
    ) -> Held:
        audit = store.audit
        changes = {"state": RUNNING, "epoch": epoch + 1, "claim_id": claim_id}
        due = store.now(lease)
        store._execute(audit.update(due_at=due, **changes).where(audit.message_id == message_id))
        return Held(message_id, epoch + 1, claim_id)

    _store.claim = claim


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
