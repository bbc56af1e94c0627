"""What the bodies of the jobs do, by their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq_durable import AuditWriteFailed, RequeueImmediately, current_audit

if TYPE_CHECKING:
    from dramatiq_durable.current import CurrentAudit

    from .plan import Job
    from .processes import Application
    from .world import World

EFFECTS = "CREATE TABLE effects (label TEXT)"


class Refusal(Exception):
    """Listed in ``throws``."""


class Bodies:
    def __init__(self, world: World) -> None:
        self.world = world
        self._jobs = {job.label: job for job in world.plan.all_jobs()}
        self._runs: dict[str, int] = {}

    def run(self, app: Application, label: str) -> str:
        audit, job = current_audit(), self._jobs[label]
        self._runs[label] = self._runs.get(label, 0) + 1
        with self.world.ledger.running(label, audit) as run:
            assert audit is not None
            self.world.point("body", f"{label} begins, token {audit.token}")
            if job.kind == "commits":
                run.commits = True
                self._commit(audit, label)
            else:
                self._act(app, job, audit)
            self.world.point("body", f"{label} ends, token {audit.token}")
            run.returned = True
        return label

    def _act(self, app: Application, job: Job, audit: CurrentAudit) -> None:
        times, kind = self._runs[job.label], job.kind
        if (kind == "fails" and times == 1) or (kind == "exhausts" and times <= 2):
            raise RuntimeError(f"{job.label} fails")
        if kind == "refuses":
            raise Refusal(job.label)
        if kind == "requeues" and times == 1:
            raise RequeueImmediately
        if kind == "slow":
            self.world.scheduler.sleep(45)
        if kind == "beats":
            self.world.scheduler.sleep(25)
            audit.heartbeat()
            self.world.scheduler.sleep(25)
        if (
            kind == "sends"
            and job.follower is not None
            and not self.world.ledger.is_sent(job.follower.label)
        ):
            try:
                app.send(job.follower)
            except AuditWriteFailed:
                self.world.note("the follower is not sent")

    def _commit(self, audit: CurrentAudit, label: str) -> None:
        with audit.transaction() as database:
            database.execute_sql("INSERT INTO effects (label) VALUES (?)", (label,))
