"""What a lane has come to, in words and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .excuses import Bounds
from .history import History, kinds
from .ledger import Event
from .recoveries import Recovery

#: Each must have nothing at all.
VERDICTS = (
    "lost",
    "unexpected",
    "duplicates unexplained",
    "refused",
    "tokens",
    "overlap",
    "usurped",
    "late",
    "pushed twice",
    "left open",
    "ended by itself",
)
SHOWN = 5  # jobs of each verdict whose lines are printed


@dataclass
class Report:
    history: History
    bounds: Bounds
    violations: dict[str, list[str]] = field(default_factory=lambda: {v: [] for v in VERDICTS})
    explained: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)

    def add(self, verdict: str, what: Iterable[str]) -> None:
        self.violations[verdict] += what

    @property
    def ok(self) -> bool:
        return not any(self.violations.values())

    @property
    def promised(self) -> int:
        """Jobs whose ``send()`` returned."""
        return sum(job.promise == "OK" for job in self.history.jobs.values())

    @property
    def faults(self) -> int:
        return len(self.history.faults)

    @property
    def pushes(self) -> int:
        return sum(len(job.pushes) for job in self.history.jobs.values())

    def count(self, verdict: str) -> int:
        return len(self.violations[verdict])

    def quantile(self, part: float) -> float:
        """Of the seconds that recoveries took; 0 when there were none."""
        seconds = sorted(recovery.seconds for recovery in self.recoveries)
        return seconds[min(int(part * len(seconds)), len(seconds) - 1)] if seconds else 0.0

    @property
    def tightest(self) -> float:
        """The largest part of its bound that a recovery took."""
        return max((each.seconds / each.bound for each in self.recoveries), default=0.0)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in kinds(self.history.faults).items())
        explained = ", ".join(f"{count} by {why}" for why, count in sorted(self.explained.items()))
        p50, p99, longest = map(self.quantile, (0.5, 0.99, 1))
        jobs = len(self.history.jobs)
        lines = [
            f"{jobs} jobs, {self.promised} promised, {self.pushes} pushes of monitors",
            f"{self.faults} faults: {faults}",
            f"duplicates explained: {explained or 0}",
            f"recovery in seconds: p50 {p50:.1f}, p99 {p99:.1f}, max {longest:.1f}",
            f"the largest part of its bound that one took: {self.tightest:.0%}",
        ]
        lines += [f"{verdict}: {self.count(verdict)}" for verdict in VERDICTS]
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """The numbers, for a table of several lanes."""
        return {
            "jobs": len(self.history.jobs),
            "promised": self.promised,
            "pushes": self.pushes,
            "faults": kinds(self.history.faults),
            "explained": dict(self.explained),
            "violations": {verdict: self.count(verdict) for verdict in VERDICTS},
            "recoveries": [(each.seconds, each.bound) for each in self.recoveries],
        }

    def evidence(self, events: Iterable[Event]) -> str:
        """The ledger lines of what is wrong."""
        wrong = {each for found in self.violations.values() for each in found[:SHOWN]}
        lines = [f"{v}: {each}" for v, found in self.violations.items() for each in found[:SHOWN]]
        lines += [str(e) for e in events if e.args and (e.args[0] in wrong or e.word in _CONTEXT)]
        return "\n".join(lines)


_CONTEXT = {"FAULT", "HEALED", "STALL"}
