"""After an outage of a database its workers have a while to renew the leases that ran out meanwhile."""

from __future__ import annotations

import time
from collections.abc import Hashable

#: Seconds.
GRACE = 10.0


class Grace:
    """For which tables it is not over."""

    def __init__(self) -> None:
        self._unreachable: set[Hashable] = set()
        self._ends: dict[Hashable, float] = {}  # by the monotonic clock

    def expect(self, table: Hashable) -> None:
        """The database does not answer; the grace begins when it does."""
        self._unreachable.add(table)

    def has(self, table: Hashable) -> bool:
        """Whether *table*, which was just read, has a grace."""
        if table in self._unreachable:
            self._unreachable.remove(table)
            self._ends[table] = time.monotonic() + GRACE
        return time.monotonic() < self._ends.get(table, 0.0)
