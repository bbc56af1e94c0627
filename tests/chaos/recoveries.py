"""How long jobs waited for their next start after it was lost, and how long they may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .excuses import Bounds, Excuses
from .history import History, Job


@dataclass(frozen=True)
class Recovery:
    """A job's wait for a start to which the monitor helped."""

    job: str
    seconds: float
    bound: float


def recoveries(history: History, excuses: Excuses, bounds: Bounds) -> Iterator[Recovery]:
    for job in history.jobs.values():
        for start, end in _waits(job, excuses):
            if any(start <= push.at <= end for push in job.pushes):
                yield Recovery(job.name, end - start, _bound(start, end, history, bounds))


def _waits(job: Job, excuses: Excuses) -> Iterator[tuple[float, float]]:
    """From each moment at which the job was to be started to the one at which it was."""
    since = job.answered + job.delay if job.promise == "OK" else None
    for run in job.runs:
        if since is not None and since < run.start:
            yield since, run.start
        since = excuses.end_of(run)


def _bound(start: float, end: float, history: History, bounds: Bounds) -> float:
    """One period, and for each fault in that time its length and one period more."""
    faults = [f for f in history.faults if f.start <= end and start - bounds.period <= f.end]
    stalled = sum(s.end - s.start for s in history.stalls if s.start <= end and start <= s.end)
    lengths = sum(min(f.end, end) - max(f.start, start - bounds.period) for f in faults)
    return bounds.period * (1 + len(faults)) + lengths + stalled + bounds.slack
