"""What has become of a job, and could not be written yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from dramatiq.logging import get_logger

from .errors import AuditLocked, DatabaseUnreachable
from .faults import first_line
from .store import Held, Store

# Seconds between two tries of a database that does not answer.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

logger = get_logger(__name__)


@dataclass(eq=False)
class Owed:
    """A write that is tried until *until* on the monotonic clock.

    Until infinity means: through any outage and lock, but no longer when the
    database has refused it for another reason.
    """

    store: Store
    held: Held
    write: Callable[[Store], object]
    until: float
    pause: float = 0.0
    try_at: float = 0.0

    def pay(self) -> bool:
        """Try to write it.

        Returns:
          Whether nothing is owed any more.

        Raises:
          DatabaseUnreachable: Nothing can be written now.
        """
        if time.monotonic() >= self.until:
            logger.warning(
                "The database did not take what became of message %s while its lease lasted; "
                "the monitor will recover it.",
                self.held.message_id,
            )
            return True
        try:
            self.write(self.store.reserved())
            return True
        except AuditLocked:
            self._put_off()
        except DatabaseUnreachable:
            raise
        except Exception as error:
            if not self.pause:
                text = "What became of message %s cannot be written (%s)."
                logger.error(text, self.held.message_id, first_line(error))  # noqa: TRY400 - in a line
            self._put_off()
            return self.until == math.inf
        return False

    def _put_off(self) -> None:
        self.pause = longer(self.pause)
        self.try_at = time.monotonic() + self.pause


def longer(pause: float) -> float:
    return min(max(2 * pause, SHORTEST_PAUSE), LONGEST_PAUSE)


def warn_of(refused: set[Held]) -> None:
    """The audits of jobs that were done, and were no longer ours to complete."""
    for lost in refused:
        logger.warning(
            "Message %s was done, but its audit was no longer ours: another worker "
            "has claimed it, it was cancelled, or the database has lost it.",
            lost.message_id,
        )


def completion(store: Store, held: Held) -> Owed:
    return Owed(store, held, lambda own: warn_of(own.complete([held])), math.inf)
