"""Databases that fail are left alone for a while, and do not keep a monitor from the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dramatiq.logging import get_logger

from .errors import DatabaseUnreachable, SchemaMismatch
from .store import Store


@dataclass(frozen=True)
class Rest:
    """How often in a row a database has failed, and until when it is left alone."""

    failures: int
    until: float  # by the monotonic clock


class Resting:
    """*pause* says for how many seconds, after so many failures in a row."""

    def __init__(self, pause: Callable[[int], float]) -> None:
        self.logger = get_logger("dramatiq_durable.monitor", type(self))
        self._pause = pause
        self._rests: dict[Store, Rest] = {}

    def awake(self, stores: Sequence[Store]) -> list[Store]:
        now = time.monotonic()
        return [s for s in stores if s not in self._rests or self._rests[s].until <= now]

    def failing(self) -> Collection[Store]:
        return self._rests.keys()

    def note(self, served: Sequence[Store], errors: Mapping[Store, Exception]) -> None:
        """What came of a pass over those *served*."""
        for store in served:
            rest = self._rests.pop(store, None)
            if store in errors:
                self._rest(store, errors[store], rest.failures + 1 if rest is not None else 1)

    def _rest(self, store: Store, error: Exception, failures: int) -> None:
        self._rests[store] = Rest(failures, time.monotonic() + self._pause(failures))
        if isinstance(error, (DatabaseUnreachable, SchemaMismatch)):
            self.logger.warning("%s. The monitor waits.", error)
        else:
            self.logger.error("This pass failed; the next one may not.", exc_info=error)
