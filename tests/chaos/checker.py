"""What the ledgers say of the promises: a function of what was written, and of nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .ledger import Entry
from .settings import BOUND, HEARTBEAT, LEASE

#: Seconds by which the entries of different processes about one event may be apart.
SLACK = 0.5

#: A lease that is not renewed for so long may run out.
SILENCE = LEASE - 1.5 * HEARTBEAT


@dataclass
class Report:
    """*violations*: what must not be, a line for each."""

    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    explained: int = 0  # second effects of a job, for which a crash or a pause answers
    unexplained: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    recoveries: list[float] = field(
        default_factory=list
    )  # seconds from OK to effect, outages taken off
    marks: int = 0

    @property
    def wrong(self) -> list[str]:
        """Every line that must not be there."""
        return [
            *(f"lost: {job}" for job in self.lost),
            *(f"unexpected: {job}" for job in self.unexpected),
            *(f"done twice, and nothing explains it: {job}" for job in self.unexplained),
            *self.violations,
        ]

    def percentile(self, share: float) -> float:
        times = sorted(self.recoveries)
        return times[min(int(share * len(times)), len(times) - 1)] if times else 0.0


@dataclass
class Run:
    """One run of a body."""

    pid: int
    token: int
    start: float
    effects: list[float] = field(default_factory=list)
    end: float | None = None


class Checker:
    def __init__(
        self, entries: Sequence[Entry], effects: Iterable[str] = (), open_audits: int = 0
    ) -> None:
        self.report = Report()
        self._effects = Counter(effects)  # in the database, by transaction()
        self._open = open_audits
        self._by_job: dict[str, list[Entry]] = defaultdict(list)
        self._faults: list[Entry] = []
        self._marks: Counter[tuple[str, str]] = Counter()
        for entry in entries:
            if entry.kind in {"KILL", "PAUSE", "STALL", "OUTAGE"}:
                self._faults.append(entry)
            elif entry.kind == "MARK":
                self._marks[entry.subject, " ".join(entry.words)] += 1
            else:
                self._by_job[entry.subject].append(entry)

    def check(self) -> Report:
        report = self.report
        for job, entries in self._by_job.items():
            self._check_job(job, entries)
        for (message, read), count in self._marks.items():
            report.marks += count
            if count > 1:
                report.violations.append(f"marked {count} times in a due period: {message} {read}")
        if self._open:
            report.violations.append(f"{self._open} audits are open at the end")
        return report

    def _check_job(self, job: str, entries: list[Entry]) -> None:
        report = self.report
        said = {entry.kind: entry for entry in entries}
        runs = _runs(entries)
        effects = sorted(moment for run in runs for moment in run.effects)
        report.jobs += "CALL" in said
        if job in self._effects and not effects:
            effects = [run.start for run in runs][:1]  # it died before it could say so
        if "OK" in said and not effects:
            report.lost.append(job)
        if effects and ("CALL" not in said or ("ERR" in said and not self._answer_was_lost(said))):
            report.unexpected.append(job)
        if self._effects[job] > 1:
            report.violations.append(f"done {self._effects[job]} times in transaction(): {job}")
        self._check_runs(job, runs)
        if "OK" in said and effects:
            self._check_bound(job, said["OK"].time, effects[0])

    def _check_runs(self, job: str, runs: list[Run]) -> None:
        report = self.report
        for first, second in pairwise(runs):
            if second.token <= first.token:
                report.violations.append(f"its token did not rise: {job} {first} {second}")
            overlap = first.end is None or first.end > second.start
            explained = self._explains(first, second.start)
            if overlap and not explained and not self._failed(first, second):
                report.violations.append(f"two ran at once: {job} {first} {second}")
            if first.effects and second.effects:
                if explained:
                    report.explained += 1
                else:
                    report.unexplained.append(f"{job} {first} {second}")

    def _explains(self, run: Run, until: float) -> bool:
        """Whether its process died or stood still, or could not reach the database, before the next run."""
        for fault in self._faults:
            if fault.time < run.start - SLACK:
                continue
            mine = fault.subject == str(run.pid)
            if fault.kind == "KILL" and mine and fault.time <= until + SLACK:
                return True
            if fault.kind in {"PAUSE", "STALL"} and mine and fault.began <= until + SLACK:
                return True
            if fault.kind == "OUTAGE" and fault.subject == "database" and fault.began <= until:
                return True
        return False

    def _failed(self, first: Run, second: Run) -> bool:
        """A body that raised has no end, and its retry comes after it in the same or another process."""
        return first.end is None and not first.effects

    def _answer_was_lost(self, said: dict[str, Entry]) -> bool:
        began, ended = said["CALL"].time - SLACK, said["ERR"].time + SLACK
        return any(
            fault.kind == "OUTAGE" and fault.began <= ended and fault.time >= began
            for fault in self._faults
        )

    def _check_bound(self, job: str, sent: float, done: float) -> None:
        spans = [
            (max(fault.began, sent), min(fault.time, done))
            for fault in self._faults
            if fault.kind in {"PAUSE", "OUTAGE", "STALL"}
        ]
        took = done - sent - _covered(spans)
        self.report.recoveries.append(max(took, 0.0))
        kills = sum(1 for f in self._faults if sent <= f.time <= done and f.kind == "KILL")
        faults = kills + sum(1 for begin, end in spans if begin < end)
        # Each fault in between may have struck this job anew.
        if took > BOUND * (1 + faults):
            self.report.violations.append(f"its effect came after {took:.1f} s: {job}")


def _runs(entries: list[Entry]) -> list[Run]:
    runs: list[Run] = []
    for entry in entries:
        if entry.kind == "START":
            runs.append(Run(entry.pid, int(entry.words[0]), entry.time))
        elif entry.kind in {"EFFECT", "END"}:
            token = int(entry.words[0])
            mine = [r for r in runs if (r.pid, r.token) == (entry.pid, token)]
            if entry.kind == "EFFECT":
                mine[-1].effects.append(entry.time)
            else:
                mine[-1].end = entry.time
    return runs


def _covered(spans: list[tuple[float, float]]) -> float:
    total, until = 0.0, 0.0
    for begin, end in sorted(spans):
        start = max(begin, until)
        if end > start:
            total += end - start
            until = end
    return total
