"""What a pass of the monitor has done, and all of them together."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Named(Protocol):
    """What has the names of a queue and an actor."""

    @property
    def queue_name(self) -> str: ...
    @property
    def actor_name(self) -> str: ...


@dataclass
class Pass:
    """What one pass of the monitor has done, in numbers of audits."""

    recovered: int = 0  # enqueued again
    dead: int = 0  # given up: past their expiration, or after max_crashes
    deleted: int = 0  # finished and older than their retention
    failed: int = 0  # could not be sent, and are set aside
    held: int = 0  # stale, but their messages still wait in the broker
    outage: bool = False  # the broker takes nothing, or refused the last message

    def __post_init__(self) -> None:
        #: The same by (what, queue_name, actor_name), as far as it was noted.
        self.by_actor: Counter[tuple[str, str, str]] = Counter()

    def note(self, what: str, audits: Iterable[Named]) -> None:
        """Count *audits* as *what*, a field of this."""
        keys = [(what, each.queue_name, each.actor_name) for each in audits]
        setattr(self, what, getattr(self, what) + len(keys))
        self.by_actor.update(keys)

    def __bool__(self) -> bool:
        return bool(self.recovered or self.dead or self.deleted or self.failed or self.outage)

    def __str__(self) -> str:
        text = (
            f"recovered {self.recovered}, dead {self.dead}, "
            f"deleted {self.deleted}, failed {self.failed}"
        )
        if self.held:
            text += f", held {self.held}"
        return f"{text}; the broker takes no messages" if self.outage else text


class Sums(NamedTuple):
    """What the passes of a monitor come to, at one moment."""

    by_actor: Counter[tuple[str, str, str]]
    deleted: int
    durations: list[int]  # passes up to each of BUCKETS, each pass counted once
    seconds: float
    failed_passes: int
    good_at: float | None  # by this machine's clock, since 1970
    outage: bool


#: Seconds of passes, each the upper end of a range.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)


class Passes:
    """All passes that a monitor has made; one thread adds, others read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = Sums(Counter(), 0, [0] * len(BUCKETS), 0.0, 0, None, False)

    def add(self, done: Pass, began: float, *, failed: bool, good: bool) -> None:
        """A pass that *began* at that moment of the monotonic clock has ended.

        *failed*: it met an error of a database; *good*: all databases are served.
        """
        seconds = time.monotonic() - began
        with self._lock:
            sums = self._sums
            sums.by_actor.update(done.by_actor)
            sums.durations[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._sums = sums._replace(
                deleted=sums.deleted + done.deleted,
                seconds=sums.seconds + seconds,
                failed_passes=sums.failed_passes + failed,
                good_at=time.time() if good else sums.good_at,
                outage=done.outage,
            )

    def fail(self) -> None:
        """A pass has ended in an error that nobody expects."""
        with self._lock:
            self._sums = self._sums._replace(failed_passes=self._sums.failed_passes + 1)

    def sums(self) -> Sums:
        with self._lock:
            sums = self._sums
            return sums._replace(by_actor=sums.by_actor.copy(), durations=list(sums.durations))
