"""Which faults explain that a job was started again while, or after, a run of it."""

from __future__ import annotations

from dataclasses import dataclass

from .history import Fault, History, Run

#: Seconds after its END in which a completion is written, when nothing is broken.
GRACE = 2.0

#: Seconds that the claim may be older than the START line.
CLAIMED = 1.0

#: Seconds after which a worker looks again for a database that was away, at the latest.
PAUSE = 10.0


@dataclass(frozen=True)
class Bounds:
    """The durations that the lane was run with, in seconds."""

    lease: float = 2.0
    heartbeat: float = 0.5
    job_timeout: float = 3.0
    backoff: float = 1.0
    push_lease: float = 5.0
    interval: float = 0.3
    slack: float = 15.0  # what a busy machine adds to a recovery
    one_file: bool = False  # SQLite: a process that stands still may lock the others out
    tokens: bool = True  # False: plain Dramatiq, whose runs have none

    @property
    def period(self) -> float:
        """What a lost message, a dead worker or a dead monitor may cost."""
        timeout = max(self.job_timeout, self.lease) + self.backoff
        return max(timeout + self.interval, self.push_lease + self.interval)


class Excuses:
    def __init__(self, history: History, bounds: Bounds) -> None:
        self._history = history
        self._bounds = bounds

    def of(self, run: Run) -> str | None:
        """Why another run may rightly follow *run*; None when nothing explains it."""
        if self._crashed(run):
            return "crash"
        return self.of_lease(run)

    def of_lease(self, run: Run) -> str | None:
        """Why its lease may have run out while its process was alive."""
        for reason, faults in (
            ("pause", self._pauses(run)),
            ("outage", self._outages(run)),
        ):
            if faults:
                return reason
        stalls = self._stalls(run, self.end_of(run) + GRACE)
        if self._outlasts(sum(stall.end - stall.start for stall in stalls)):
            return "stall"
        return None

    def end_of(self, run: Run) -> float:
        """When the run was over at the latest."""
        if run.end is not None:
            return run.end
        died = self._history.deaths.get(run.process)
        return self._history.end if died is None else max(died, run.start)

    def _crashed(self, run: Run) -> bool:
        died = self._history.deaths.get(run.process)
        if died is None:
            return False
        if run.end is None or died <= run.end + GRACE:
            return True
        stalled = sum(stall.end - stall.start for stall in self._stalls(run, died))
        if died <= run.end + GRACE + stalled:
            return True
        away = self._database(run.start, run.end + GRACE)
        return any(died <= fault.end + PAUSE for fault in away)

    def _pauses(self, run: Run) -> list[Fault]:
        faults = self._history.during(run.process, *self._window(run))
        return [f for f in faults if f.kind in ("stop", "hold") and self._outlasts(f.end - f.start)]

    def _outages(self, run: Run) -> list[Fault]:
        # The keeper looks again after a pause as long as the outage was.
        return [
            fault
            for fault in self._database(*self._window(run))
            if self._outlasts(2 * (fault.end - fault.start) + self._bounds.heartbeat / 2)
        ]

    def _stalls(self, run: Run, end: float) -> list[Fault]:
        """Those of the run's process, from its claim to *end*."""
        start = run.start - CLAIMED
        return [
            stall
            for stall in self._history.stalls
            if stall.subject == run.process and stall.start <= end and start <= stall.end
        ]

    def _outlasts(self, seconds: float) -> bool:
        """Whether a lease that was renewed a heartbeat before may run out in so many seconds."""
        return seconds >= self._bounds.lease - self._bounds.heartbeat - 0.1

    def _window(self, run: Run) -> tuple[float, float]:
        return run.start - CLAIMED, self.end_of(run) + GRACE

    def _database(self, start: float, end: float) -> list[Fault]:
        faults = self._history.during("database", start, end)
        if self._bounds.one_file:
            faults += [
                fault
                for fault in self._history.faults
                if fault.kind == "stop" and fault.start <= end and start <= fault.end
            ]
        return faults
