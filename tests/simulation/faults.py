"""Which fault strikes where: a seed decides it, point by point."""

from __future__ import annotations

import random

ANYWHERE = ("crash", "crash", "pause", "pause", "jump", "flush", "stop")
FAULTS = {
    "body": ANYWHERE,
    "statement": (*ANYWHERE, "answer lost", "answer lost", "outage", "outage"),
    "call": (*ANYWHERE, "refused", "refused", "answer lost", "swallowed", "swallowed", "doubled"),
}

#: Seconds that a process is paused, or that nobody does anything: leases, push leases and timeouts run out.
PAUSES = (15, 45, 70, 200, 1_000)
#: A day and three days are the retention and the expiration.
JUMPS = (*PAUSES, 4_000, 90_000, 300_000)


class Faults:
    """Strikes *count* times, after so many points each time as a seed decides."""

    def __init__(self, rng: random.Random, count: int, spread: int) -> None:
        self._rng = rng
        self._left = count
        self._spread = spread
        self._countdown = self._gap()

    def next(self, place: str) -> str | None:
        """The fault that strikes at this point, one of those of *place*."""
        if not self._left:
            return None
        self._countdown -= 1
        if self._countdown:
            return None
        self._left -= 1
        self._countdown = self._gap()
        return self._rng.choice(FAULTS[place])

    def _gap(self) -> int:
        return 1 + int(self._rng.random() * self._spread)
