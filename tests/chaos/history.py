"""The ledgers, put together: jobs with their runs and pushes, faults, stalls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
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
        return {f.subject: f.start for f in self.faults if f.kind == "kill"}

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
    jobs: dict[str, Job] = {}
    faults: dict[str, Fault] = {}
    history = History(jobs, [], [], [], 0.0)
    last: dict[tuple[str, str, str], Run] = {}
    by_token: dict[tuple[str, str], Run] = {}
    for event in sorted(events, key=lambda each: each.at):
        history.end = event.at
        at, args = event.at, event.args
        match event.word:
            case "CALL":
                job = _job(jobs, args[0])
                job.kind, job.called, job.delay = args[1], at, float(args[2])
            case "OK" | "ERR" | "ROLLBACK":
                job = _job(jobs, args[0])
                job.promise, job.answered, job.error = event.word, at, " ".join(args[1:])
            case "START":
                run = Run(args[0], int(args[1]), event.process, at)
                _job(jobs, args[0]).runs.append(run)
                last[event.process, args[0], args[1]] = by_token[args[0], args[1]] = run
            case "EFFECT":
                own = last.get((event.process, args[0], args[1]))
                own = own or by_token.get((args[0], args[1]))
                if own is None:  # known from the database alone
                    own = by_token[args[0], args[1]] = Run(
                        args[0], int(args[1]), event.process, at, how="FAIL", end=at
                    )
                    _job(jobs, args[0]).runs.append(own)
                own.effects += 1
            case "END" | "FAIL" | "LOST":
                run = last[event.process, args[0], args[1]]
                if not run.how:
                    run.end, run.how = at, event.word
            case "PUSH":
                _job(jobs, args[0]).pushes.append(Push(at, args[1], args[2]))
            case "FAULT":
                faults[args[0]] = Fault(args[1], args[2], at, at)
            case "HEALED":
                fault = faults[args[0]]
                faults[args[0]] = Fault(fault.name, fault.subject, fault.start, at)
            case "STALL":
                history.stalls.append(Fault("stall", event.process, at - float(args[0]), at))
            case "EXIT":
                history.exits.append(event)
            case word:
                raise ValueError(f"no ledger has {word!r}")
    for job in jobs.values():
        job.runs.sort(key=lambda run: (run.token, run.start))
    history.faults = list(faults.values())
    return history


def kinds(faults: Iterable[Fault]) -> dict[str, int]:
    """How many faults of each name there are."""
    counts: dict[str, int] = defaultdict(int)
    for fault in faults:
        counts[fault.name] += 1
    return dict(sorted(counts.items()))


def _job(jobs: dict[str, Job], name: str) -> Job:
    return jobs.setdefault(name, Job(name))
