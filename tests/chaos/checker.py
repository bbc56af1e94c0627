"""The verdict on what a lane's ledgers say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from .excuses import Bounds, Excuses
from .history import Fault, History, Job, Run, assemble
from .ledger import Event
from .recoveries import recoveries
from .report import Report

#: Seconds after which a server that was told to be away is away.
GOES_WITHIN = 0.3

#: While these last nothing is committed.
ABSENCES = {"kill", "down"}


def check(events: Iterable[Event], bounds: Bounds, left_open: Sequence[str] = ()) -> Report:
    """What the ledgers prove, and where they contradict the promises.

    Parameters:
      left_open: What the database still has open, or dead, at the end.
    """
    history = assemble(events)
    excuses = Excuses(history, bounds)
    report = Report(history, bounds)
    report.add("left open", left_open)
    report.add("ended by itself", [str(event) for event in history.exits])
    for job in history.jobs.values():
        _check_promise(job, history, report)
        _check_duplicates(job, excuses, report)
        if bounds.tokens:
            _check_runs(job, excuses, report)
            _check_pushes(job, report)
    if bounds.tokens:
        for recovery in recoveries(history, excuses, bounds):
            report.recoveries.append(recovery)
            if recovery.seconds > recovery.bound:
                report.add("late", [recovery.job])
    return report


def _check_promise(job: Job, history: History, report: Report) -> None:
    if job.promise == "OK" and not job.effects:
        report.add("lost", [job.name])
    if job.promise == "ERR" and job.error not in ("AuditWriteFailed", "transaction"):
        report.add("refused", [job.name])
    if job.runs and (
        job.called is None
        or job.promise == "ROLLBACK"
        or (job.promise == "ERR" and not _answer_may_be_lost(job, history))
    ):
        report.add("unexpected", [job.name])


def _answer_may_be_lost(job: Job, history: History) -> bool:
    """Whether the commit may have happened although its sender saw an error."""
    assert job.called is not None
    during = history.during("database", job.called, job.answered)

    def is_away(fault: Fault) -> bool:
        assert job.called is not None
        away = fault.start + GOES_WITHIN < job.called and job.answered < fault.end
        return fault.kind in ABSENCES and away

    return bool(during) and not any(map(is_away, during))


def _check_duplicates(job: Job, excuses: Excuses, report: Report) -> None:
    if any(run.effects > 1 for run in job.runs):
        report.add("duplicates unexplained", [job.name])
    for run, _ in pairwise(run for run in job.runs if run.effects):
        reason = excuses.of(run)
        if reason is None or job.kind == "exact":
            report.add("duplicates unexplained", [job.name])
        else:
            report.explained[reason] += 1


def _check_runs(job: Job, excuses: Excuses, report: Report) -> None:
    if any(count > 1 for count in Counter(run.token for run in job.runs).values()):
        report.add("tokens", [job.name])
    for earlier, later in pairwise(job.runs):
        if later.start < excuses.end_of(earlier) and not excuses.of_lease(earlier):
            report.add("overlap", [job.name])
    if job.runs and not _is_done(job, job.runs[-1]):
        report.add("usurped", [job.name])


def _is_done(job: Job, last: Run) -> bool:
    """Whether the holder of the largest token is the one that completed the job."""
    return bool(last.effects) if job.kind == "exact" else last.how == "END"


def _check_pushes(job: Job, report: Report) -> None:
    periods = Counter((push.epoch, push.period) for push in job.pushes)
    if any(count > 1 for count in periods.values()):
        report.add("pushed twice", [job.name])
