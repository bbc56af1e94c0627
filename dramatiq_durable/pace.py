"""A bounded rate."""

from __future__ import annotations

import time

from .stopping import Stop

MAX_RATE = 1_000.0  # messages per second, unless an operator says otherwise

BURST = 0.1  # seconds
MOST = 1_000_000


class Pace:
    """Lets through at most *rate* in a second, until *stopped* is set."""

    def __init__(self, rate: float, stopped: Stop) -> None:
        self._gap = 1 / rate
        #: How many may go at once, so that they come in a stream.
        self.burst = max(int(min(rate * BURST, MOST)), 1)
        self._stopped = stopped
        self._next_at = 0.0  # by the monotonic clock

    def spend(self, count: int) -> bool:
        """Wait until so many have had their time; what was not used before is not saved up.

        Returns:
          False when it was stopped before.
        """
        now = time.monotonic()
        self._next_at = max(self._next_at + count * self._gap, now)
        return self._next_at <= now or not self._stopped.wait(self._next_at - now)
