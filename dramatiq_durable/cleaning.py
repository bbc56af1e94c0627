"""Finished audits are deleted in batches that hold up nobody."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from dramatiq.logging import get_logger

from .errors import AuditLocked
from .stopping import Stop
from .store import Store

#: Seconds that a batch may take; one that takes longer halves the next.
LONGEST_BATCH = 0.05

#: A batch of half as many takes less than this part of the time if it is their number that takes it.
CLEARLY_QUICKER = 0.75

#: Audits below which a batch is not halved, for then it is not their number that takes the time.
SMALLEST_BATCH = 10


class Cleaning:
    """Deletes what is past its retention, *largest* audits at a time at the most, until *stopped* is set."""

    def __init__(self, stopped: Stop, retentions: Mapping[str, Any], largest: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self._stopped = stopped
        self._ages = retentions
        self._largest = largest
        self._sizes: dict[Any, int] = {}  # of the next batch, by table
        self._last: dict[
            Any, tuple[int, float]
        ] = {}  # how many the last one deleted, and how long that took

    def count(self, store: Store) -> int:
        """How many there are to delete."""
        return store.count_expired(**self._ages)

    def clean(self, store: Store, seconds: float = math.inf) -> tuple[int, bool]:
        """Delete them for so many *seconds*, about half of which are left to others.

        Returns:
          How many were deleted, and whether more may be left.
        """
        deleted, end = 0, time.monotonic() + seconds
        while True:
            size = self._sizes.get(store.audit, self._largest)
            began = time.monotonic()
            try:
                count = store.cleanup(size, **self._ages)
            except AuditLocked:
                self.logger.debug("Some finished audits are locked; the next pass deletes them.")
                return deleted, False
            deleted += count
            if count < size:
                return deleted, False
            took = time.monotonic() - began
            self._sizes[store.audit] = self._next_size(store.audit, size, took)
            if self._stopped.wait(min(took, LONGEST_BATCH)) or time.monotonic() >= end:
                return deleted, True

    def _next_size(self, table: Any, size: int, took: float) -> int:
        before, took_before = self._last.get(table, (size, took))
        self._last[table] = (size, took)
        # A database that is far away takes as long for a few.
        in_vain = size < before and took > CLEARLY_QUICKER * took_before
        if took <= LONGEST_BATCH / 4 or in_vain:
            return min(2 * size, self._largest)
        return max(size // 2, min(SMALLEST_BATCH, self._largest)) if took > LONGEST_BATCH else size
