"""What is to become of a stale audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .backoff import cubic_backoff
from .messages import copy_of
from .middleware import DurableMiddleware
from .models import RUNNING
from .options import Policy, checked
from .store import Stale, Store


@dataclass(frozen=True)
class Plan:
    """Its *message* goes out, or the *error* says why not."""

    stale: Stale
    policy: Policy
    backoff: timedelta
    message: Any
    error: Exception | None = None

    def hopeless(self, expiration: timedelta) -> str | None:
        """Why the job is to be given up, if it is."""
        stale, max_crashes = self.stale, self.policy.max_crashes
        crashes = stale.crash_count + (stale.state == RUNNING)
        if max_crashes is not None and crashes >= max_crashes:
            return f"its worker died {crashes} times while it ran (max_crashes)"
        if stale.enqueue_count >= 2 and stale.now - stale.scheduled_at >= expiration:
            return f"open for longer than its expiration ({expiration})"
        return None


def plan(middleware: DurableMiddleware, store: Store, stale: Stale) -> Plan:
    """*stale* has its payload."""
    policy = middleware.policy_of(stale.actor_name, {})
    try:
        assert middleware.broker is not None
        store.verify(stale)
        message = copy_of(stale, middleware.broker)
        checked(message.options, "the stored message")
        policy = middleware.policy(message)
        return Plan(stale, policy, policy.wait(stale.enqueue_count + 1), message)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others go out
        return Plan(stale, policy, cubic_backoff(stale.enqueue_count + 1), None, error)
