"""Transitions that break a promise, to see that the suite notices."""

from __future__ import annotations

import uuid
from typing import Any

from dramatiq_durable import DurableMiddleware
from dramatiq_durable.store import Held, Store


def _never_written(self: Store, new: Any, **options: Any) -> bool:
    """The audit of a message is lost."""
    return True


def _any_copy_claims(
    self: Store, message_id: str, epoch: int, claim_id: str, **options: Any
) -> Held:
    """A copy runs whether or not another one has."""
    return Held(message_id, epoch + 1, claim_id or str(uuid.uuid4()))


def _pushes_nothing(self: DurableMiddleware, message: Any, delay: int | None) -> Any:
    """A monitor marks and confirms what it has not sent."""
    return message


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "audit-not-written": (Store, "enqueue", _never_written),
    "claim-without-guard": (Store, "claim", _any_copy_claims),
    "recovery-without-push": (DurableMiddleware, "push", _pushes_nothing),
}


def install(name: str) -> None:
    owner, method, mutant = MUTANTS[name]
    setattr(owner, method, mutant)
