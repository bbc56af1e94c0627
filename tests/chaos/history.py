"""The ledgers, put together: jobs with their runs and pushes, faults, stalls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from .ledger import Event

SERVERS = {"broker", "database"}


@dataclass
class Run:
    """One run of a job, from its START to the line that says how it ended."""

    job: str
    token: int
    process: str
    start: float
    effects: int = 0
    end: float | None = None
    how: str = ""  # END, FAIL, LOST; nothing when the process died


@dataclass(frozen=True)
class Push:
    at: float
    epoch: str
    period: str


@dataclass
class Job:
    name: str
    kind: str = ""
    called: float | None = None
    delay: float = 0.0
    promise: str = ""  # OK, ERR, ROLLBACK; nothing when its producer died before it knew
    answered: float = 0.0
    error: str = ""
    runs: list[Run] = field(default_factory=list)  # by their tokens
    pushes: list[Push] = field(default_factory=list)

    @property
    def effects(self) -> int:
        return sum(run.effects for run in self.runs)


@dataclass(frozen=True)
class Fault:
    name: str
    subject: str  # a process, or one of SERVERS
    start: float
    end: float

    @property
    def kind(self) -> str:
        """What the name says before its first colon."""
        return self.name.partition(":")[0]


@dataclass
class History:
    jobs: dict[str, Job]
    faults: list[Fault]
    stalls: list[Fault]
    exits: list[Event]
    end: float

    @cached_property
    def deaths(self) -> dict[str, float]:
        """When a fault killed a process, by the process."""
        kills = (f for f in reversed(self.faults) if f.kind == "kill")
        return {fault.subject: fault.start for fault in kills}  # the first, if it has several

    @cached_property
    def _by_subject(self) -> dict[str, list[Fault]]:
        found: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            found[fault.subject].append(fault)
        return found

    def during(self, subject: str, start: float, end: float) -> list[Fault]:
        """The faults of *subject* that touch the time between *start* and *end*."""
        return [f for f in self._by_subject[subject] if f.start <= end and start <= f.end]


def assemble(events: Iterable[Event]) -> History:
    assembly = _Assembly()
    for event in sorted(events, key=lambda each: each.at):
        assembly.take(event)
    return assembly.history()


class _Assembly:
    """Takes the events in the order of time."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._faults: dict[str, Fault] = {}
        self._stalls: list[Fault] = []
        self._exits: list[Event] = []
        self._end = 0.0
        self._runs: dict[tuple[str, ...], Run] = {}  # the last, by process, job and token
        self._take = {
            "CALL": self._called,
            **dict.fromkeys(("OK", "ERR", "ROLLBACK"), self._answered),
            "START": self._started,
            "EFFECT": self._had_effect,
            **dict.fromkeys(("END", "FAIL", "LOST"), self._ended),
            "PUSH": self._pushed,
            "FAULT": self._broken,
            "HEALED": self._healed,
            "STALL": self._stalled,
            "EXIT": self._exits.append,
        }

    def take(self, event: Event) -> None:
        self._end = event.at
        self._take[event.word](event)

    def history(self) -> History:
        for job in self._jobs.values():
            job.runs.sort(key=lambda run: (run.token, run.start))
        faults = list(self._faults.values())
        return History(self._jobs, faults, self._stalls, self._exits, self._end)

    def _job(self, event: Event) -> Job:
        name = event.args[0]
        return self._jobs.setdefault(name, Job(name))

    def _called(self, event: Event) -> None:
        job = self._job(event)
        _, job.kind, delay = event.args
        job.called, job.delay = event.at, float(delay)

    def _answered(self, event: Event) -> None:
        job = self._job(event)
        job.promise, job.answered = event.word, event.at
        job.error = " ".join(event.args[1:])

    def _started(self, event: Event) -> None:
        job, token = event.args
        run = Run(job, int(token), event.process, event.at)
        self._job(event).runs.append(run)
        self._runs[event.process, job, token] = self._runs[job, token] = run

    def _had_effect(self, event: Event) -> None:
        # Those in the database are noted at the end by another process than their own.
        run = self._runs.get((event.process, *event.args)) or self._runs.get(event.args)
        if run is None:
            self._started(event)
            run = self._runs[event.args]
        run.effects += 1

    def _ended(self, event: Event) -> None:
        job, token = event.args
        run = self._runs[event.process, job, token]
        if not run.how:
            run.end, run.how = event.at, event.word

    def _pushed(self, event: Event) -> None:
        _, epoch, period = event.args
        self._job(event).pushes.append(Push(event.at, epoch, period))

    def _broken(self, event: Event) -> None:
        number, name, subject = event.args
        self._faults[number] = Fault(name, subject, event.at, event.at)

    def _healed(self, event: Event) -> None:
        fault = self._faults[event.args[0]]
        self._faults[event.args[0]] = replace(fault, end=event.at)

    def _stalled(self, event: Event) -> None:
        start = event.at - float(event.args[0])
        self._stalls.append(Fault("stall", event.process, start, event.at))


def kinds(faults: Iterable[Fault]) -> dict[str, int]:
    """How many faults of each name there are."""
    counts: dict[str, int] = defaultdict(int)
    for fault in faults:
        counts[fault.name] += 1
    return dict(sorted(counts.items()))
