"""What has really happened, noted beside the library, and the promises that it is held to.

It reads the table after each committed write, by a connection of its own, and hears from senders,
bodies and the broker what they did.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from dramatiq_durable import AuditWriteFailed, DurableError

from .plan import Job, Plan
from .scheduler import START, Process, Scheduler, Task

OPEN = {"pending", "running"}
EXPIRATION = 3 * 86_400  # seconds

_ROWS = "SELECT message_id, state, epoch, claim_id, due_at, enqueue_count, last_error FROM durable_audits"


class Row(NamedTuple):
    state: str
    epoch: int
    claim_id: str | None
    due_at: int | None
    enqueue_count: int
    last_error: str | None


@dataclass
class Claim:
    claim_id: str | None
    at: float
    lease_end: float


@dataclass(eq=False)
class Run:
    """A body that was called."""

    process: Process
    token: int
    ended: bool = False
    returned: bool = False
    commits: bool = False  # its transaction completes the audit


@dataclass(eq=False)
class Send:
    uncertain: bool = False  # the answer to a statement of its was lost
    rolled_back: bool = False
    outcome: str = "unknown"  # or "promised", or "never"


class Ledger:
    def __init__(self, plan: Plan, scheduler: Scheduler, violated: Callable[[str], None]) -> None:
        self._jobs: dict[str, Job] = {job.label: job for job in plan.all_jobs()}
        self._plan = plan
        self._scheduler = scheduler
        self._violated = violated
        self._rows: dict[str, Row] = {}
        self._finished: dict[str, Row] = {}  # and deleted since
        self._claims: dict[str, dict[int, Claim]] = {}
        self._runs: dict[str, dict[int, Run]] = {}
        self._sends: dict[str, Send] = {}
        self._sending: dict[Task, Send] = {}
        self._marks: set[tuple[Task, str]] = set()  # by monitors that have not pushed yet
        self._asked: set[tuple[str, str]] = set()  # verbs of the operator, and message_ids
        self._completed: set[str] = set()
        self.labels: dict[str, str] = {}  # by message_id

    # What the others want to know

    def message_id(self, label: str) -> str | None:
        """Of the newest message of the job."""
        return next((i for i, each in reversed(self.labels.items()) if each == label), None)

    def is_sent(self, label: str) -> bool:
        return any(
            send.outcome == "promised" and self.labels[message_id] == label
            for message_id, send in self._sends.items()
        )

    def next_due(self) -> float | None:
        """When the next audit is due."""
        dues = [row.due_at for row in self._rows.values() if row.due_at is not None]
        return min(dues) / 1e6 - START if dues else None

    # What the others tell

    def made(self, label: str, message_id: str) -> None:
        self.labels[message_id] = label

    @contextmanager
    def sending(self, message_id: str) -> Iterator[Send]:
        send = self._sends[message_id] = Send()
        task = self._scheduler.current
        self._sending[task] = send
        try:
            yield send
            send.outcome = "never" if send.rolled_back else "promised"
        except AuditWriteFailed:
            send.outcome = "unknown" if send.uncertain else "never"
        except Exception as error:  # noqa: BLE001 - it must raise nothing else
            if not send.uncertain:
                self._violated(f"send() raised {error!r}")
        finally:
            del self._sending[task]

    def answer_lost(self, task: Task) -> None:
        if task in self._sending:
            self._sending[task].uncertain = True

    @contextmanager
    def operating(self, verb: str, message_id: str) -> Iterator[None]:
        self._asked.add((verb, message_id))
        try:
            yield
        except DurableError:
            return

    @contextmanager
    def running(self, label: str, audit: Any) -> Iterator[Run]:
        if audit is None:
            self._violated(f"{label} runs without an audit")
        message_id, token = audit.message_id, audit.token
        run = Run(self._scheduler.current.process, token)
        claims, runs = self._claims.get(message_id, {}), self._runs.setdefault(message_id, {})
        if token not in claims:
            self._violated(f"{label} starts with token {token}, which nobody has claimed")
        elif token in runs:
            self._violated(f"{label} starts twice with token {token}")
        elif any(t > token and c.at < claims[token].lease_end for t, c in claims.items()):
            self._violated(
                f"{label} starts with token {token} within its lease, after a later claim"
            )
        runs[token] = run
        try:
            yield run
        finally:
            run.ended = True

    def pushed(self, message_id: str) -> None:
        """A monitor has pushed a message, and the broker has said that it took it."""
        if (self._scheduler.current, message_id) not in self._marks:
            self._violated(f"{self.labels[message_id]} is pushed without a mark, or twice for one")
        self._marks.discard((self._scheduler.current, message_id))

    def observe(self, connection: sqlite3.Connection) -> None:
        """A write of the current task is committed."""
        rows = {row[0]: Row(*row[1:]) for row in connection.execute(_ROWS)}
        for message_id, row in rows.items():
            before = self._rows.get(message_id)
            if row != before:
                self._changed(message_id, before, row)
        for message_id in [each for each in self._rows if each not in rows]:
            self._finished[message_id] = self._rows[message_id]
            if self._rows[message_id].state in OPEN:
                self._violated(f"the open audit of {self.labels[message_id]} is deleted")
        self._rows = rows

    def _changed(self, message_id: str, before: Row | None, row: Row) -> None:
        label = self.labels[message_id]
        if before is None and message_id in self._finished:
            self._sent_again(message_id)
        if before is not None and row.epoch < before.epoch:
            self._violated(f"the epoch of {label} falls from {before.epoch} to {row.epoch}")
        if before is not None and before.state not in {*OPEN, row.state}:
            retried = before.state != "completed" and ("retry", message_id) in self._asked
            if not retried:
                self._violated(f"{label} was {before.state}, and is {row.state}")
        marked = before is not None and row.enqueue_count > before.enqueue_count
        if before is not None and marked and is_monitor(self._scheduler.current):
            if before.due_at is None or before.due_at / 1e6 - START > self._scheduler.now + 0.001:
                self._violated(f"{label} is marked before it is due")
            self._marks.add((self._scheduler.current, message_id))
        if row.state == "running":
            assert row.due_at is not None
            claims = self._claims.setdefault(message_id, {})
            known = claims.get(row.epoch)
            if known is None:
                self._claimed(message_id, row)
                claims[row.epoch] = Claim(
                    row.claim_id, self._scheduler.now, row.due_at / 1e6 - START
                )
            elif known.claim_id != row.claim_id:
                self._violated(f"{label} is claimed twice at epoch {row.epoch}")
            else:
                known.lease_end = row.due_at / 1e6 - START
        if row.state == "completed" and (before is None or before.state != "completed"):
            self._complete(message_id, row)

    def _sent_again(self, message_id: str) -> None:
        """It has an audit again after it was finished and its audit deleted."""
        label = self.labels[message_id]
        if not any(
            job.kind == "pipes" and job.follower is self._jobs[label] for job in self._plan.jobs
        ):
            self._violated(f"{label} has an audit again after it was finished")
        # A step that ran again longer than the retention after the next one was done sends that anew.
        for history in (self._finished, self._claims, self._runs):
            history.pop(message_id, None)
        self._completed.discard(message_id)

    def _claimed(self, message_id: str, row: Row) -> None:
        for token, run in self._runs.get(message_id, {}).items():
            lease_end = self._claims[message_id][token].lease_end
            if not (run.ended or run.process.crashed or lease_end <= self._scheduler.now + 0.001):
                self._violated(
                    f"{self.labels[message_id]} is claimed with token {row.epoch} "
                    f"while it runs with token {token} in its lease"
                )

    def _complete(self, message_id: str, row: Row) -> None:
        label = self.labels[message_id]
        run = self._runs.get(message_id, {}).get(row.epoch)
        if run is None or not (run.returned or run.commits):
            self._violated(
                f"{label} is completed with token {row.epoch}, whose run has not returned"
            )
        if message_id in self._completed:
            self._violated(f"{label} is completed a second time")
        self._completed.add(message_id)
        job = self._jobs[label]
        if job.kind == "pipes" and job.follower is not None:
            follower = self.message_id(job.follower.label)
            assert follower is not None
            self._sends[follower] = Send(outcome="promised")

    # At the end

    def check(self, effects: list[str]) -> None:
        """Everything is at rest: what was promised must have come true."""
        for message_id, label in self.labels.items():
            outcome = self._sends.get(message_id, Send()).outcome
            row = self._rows.get(message_id) or self._finished.get(message_id)
            if row is not None and row.state in OPEN:
                self._violated(f"{label} is {row.state} at the end")
            if outcome == "never" and (row is not None or self._runs.get(message_id)):
                self._violated(f"{label} was refused or rolled back, and has an audit, or ran")
            if outcome == "promised" and (
                row is None or not self._accounted(label, message_id, row)
            ):
                self._violated(f"{label} is lost: {row}")
            if self._jobs[label].kind == "commits":
                expected = int(row is not None and row.state == "completed")
                if effects.count(label) != expected:
                    self._violated(f"{label} has {effects.count(label)} effects, not {expected}")

    def _accounted(self, label: str, message_id: str, row: Row) -> bool:
        if row.state == "completed":
            return any(run.returned or run.commits for run in self._runs[message_id].values())
        if row.state == "cancelled":
            return ("cancel", message_id) in self._asked
        if "expiration" in (row.last_error or ""):
            return self._scheduler.now >= EXPIRATION
        if "max_crashes" in (row.last_error or ""):
            return self._plan.max_crashes is not None
        return row.state == "dead" and self._jobs[label].kind == "refuses"


def is_monitor(task: Task) -> bool:
    return task.process.name.startswith("monitor")
