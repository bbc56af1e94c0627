"""What the actors decide around the transitions; the mutants override it."""

from __future__ import annotations

from .state import Audit, Copy, Monitor, Owed, Past, Process, Worker
from .transitions import Transitions


class Protocol(Transitions):
    """The protocol of the product."""

    # sender
    inserts_before_push = True
    inserts_in_transaction = True  # the caller's
    pushes_after_commit = True
    elects_sender = True  # by begin_push
    notes_push = True  # by pushed
    withdraws = True
    # worker
    checks_transaction = True
    # monitor
    marks_before_push = True
    confirms = True
    # everybody
    renews_stamps = False  # a copy looks as young as its push
    retention_from_schedule = True  # counts from the later of finished_at and scheduled_at

    def adopts(self, past: Past, copy: Copy) -> bool:
        return not past.ancient or copy.renewed

    def token(self, copy: Copy, claimed: Audit) -> int:
        return copy.epoch + 1

    def retry_copy(self, worker: Worker) -> Copy:
        return Copy(worker.token + 1, worker.claim_id)

    def owed_after_skip(self, process: Process) -> Owed | None:
        """What the keeper is given to write when a duplicate was skipped."""
        return None

    def hopeless(self, audit: Audit) -> bool:
        return audit.old and audit.enqueue_count >= 2

    def holds(self, audit: Audit, stale: Monitor, *, waits: bool) -> bool:
        """Whether the monitor postpones an audit whose message *waits* in the broker."""
        return waits and not audit.postponed and audit.state == stale.state == "pending"
