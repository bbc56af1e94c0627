"""The transitions, with the names and the guards that they have in ``dramatiq_durable.store``.

Each gets the audit as it is and returns the audit after it, or None when its
guard refuses it.  The mutants override them.
"""

from __future__ import annotations

from dramatiq_durable.models import (
    CANCELLED,
    COMPLETED,
    DEAD,
    FINISHED,
    OPEN,
    PENDING,
    RUNNING,
)

from .state import LATER, MISSING, NEVER, NOW, SOON, Audit, Copy, Monitor, Owed, Sender, Worker

Held = Worker | Owed


class Transitions:
    # of the sender

    def enqueue(self, audit: Audit, *, in_transaction: bool) -> Audit | None:
        if audit != MISSING:
            return None
        due = SOON if in_transaction else LATER
        return Audit(PENDING, due=due, enqueued=not in_transaction)

    def push_refused(self, audit: Audit, sender: Sender, *, in_transaction: bool) -> Audit | None:
        guard = self._being_pushed(audit) if in_transaction else self._as_inserted(audit, sender)
        return audit._replace(due=NOW, enqueue_count=0) if guard else None

    def pushed(self, audit: Audit) -> Audit | None:
        return audit._replace(due=LATER, enqueued=True) if self._being_pushed(audit) else None

    def begin_push(self, audit: Audit, sender: Sender) -> Audit | None:
        return audit._replace(due=SOON) if self._as_inserted(audit, sender) else None

    def withdraw(self, audit: Audit) -> Audit | None:
        return MISSING if audit.state == PENDING and audit.epoch == 0 else None

    def retry_refused(self, audit: Audit, copy: Copy) -> Audit | None:
        if not self._sent_for(audit, copy) or not audit.enqueue_count:
            return None
        return audit._replace(due=SOON, enqueue_count=audit.enqueue_count - 1)

    # of the worker

    def claim(self, audit: Audit, copy: Copy, claim_id: int) -> Audit | None:
        if not (self._sent_for(audit, copy) or self._let_go_to(audit, copy)):
            return None
        epoch = copy.epoch + 1
        return audit._replace(state=RUNNING, epoch=epoch, claim_id=claim_id, due=LATER)

    def adopt(self, audit: Audit, copy: Copy) -> Audit | None:
        return Audit(PENDING, copy.epoch) if audit == MISSING else None

    def heartbeat(self, audit: Audit, held: Held) -> Audit | None:
        guard = audit.state == RUNNING and self._held_by(audit, held)
        return audit._replace(due=LATER) if guard else None

    def complete(self, audit: Audit, held: Held) -> Audit | None:
        guard = audit.state in OPEN and self._held_by(audit, held)
        return audit._replace(state=COMPLETED, due=NEVER, old=False) if guard else None

    def release(self, audit: Audit, held: Held) -> Audit | None:
        if audit.state != RUNNING or not self._held_by(audit, held):
            return None
        return audit._replace(state=PENDING, epoch=held.token + 1, due=LATER)

    def requeue(self, audit: Audit, held: Held) -> Audit | None:
        if audit.state != RUNNING or not self._held_by(audit, held):
            return None
        epoch = held.token + 1
        return audit._replace(state=PENDING, epoch=epoch, due=NOW, enqueue_count=0, old=False)

    def dead(self, audit: Audit, holder: Held | Copy) -> Audit | None:
        guard = self._belongs_to(audit, holder)
        return audit._replace(state=DEAD, due=NEVER, old=False) if guard else None

    def abort(self, audit: Audit, holder: Held | Copy) -> Audit | None:
        return self.cancel(audit) if self._belongs_to(audit, holder) else None

    # of the monitor

    def mark(self, audit: Audit, stale: Monitor) -> Audit | None:
        if not self._as_read(audit, stale):
            return None
        count = min(audit.enqueue_count + 1, 3)
        return audit._replace(state=PENDING, due=SOON, enqueue_count=count, postponed=False)

    def confirm(self, audit: Audit, marked: Monitor) -> Audit | None:
        return audit._replace(due=LATER, enqueued=True) if self._as_marked(audit, marked) else None

    def unmark(self, audit: Audit, marked: Monitor) -> Audit | None:
        if not self._as_marked(audit, marked):
            return None
        return audit._replace(due=SOON, enqueue_count=marked.enqueue_count)

    def set_aside(self, audit: Audit, marked: Monitor) -> Audit | None:
        return audit._replace(due=LATER) if self._as_marked(audit, marked) else None

    def hold(self, audit: Audit) -> Audit | None:
        guard = audit.state == PENDING and audit.due == NOW
        return audit._replace(due=LATER, postponed=True) if guard else None

    def expire(self, audit: Audit, stale: Monitor) -> Audit | None:
        guard = self._as_read(audit, stale)
        return audit._replace(state=DEAD, due=NEVER, old=False) if guard else None

    def cleanup(self, audit: Audit) -> Audit | None:
        return MISSING if audit.state in FINISHED and audit.old else None

    # of the operator

    def cancel(self, audit: Audit) -> Audit | None:
        if audit.state not in OPEN:
            return None
        return audit._replace(state=CANCELLED, epoch=audit.epoch + 1, due=NEVER, old=False)

    def retry(self, audit: Audit) -> Audit | None:
        if audit.state not in {DEAD, CANCELLED}:
            return None
        # The run that was cancelled may go on until its lease is over.
        due = LATER if audit.state == CANCELLED else NOW
        epoch = audit.epoch + 1
        return audit._replace(state=PENDING, epoch=epoch, due=due, enqueue_count=0, old=False)

    # guards

    def _as_inserted(self, audit: Audit, sender: Sender) -> bool:
        return audit.state == PENDING and audit.epoch == 0 and sender.unchanged

    def _being_pushed(self, audit: Audit) -> bool:
        first = audit.state == PENDING and audit.epoch == 0 and audit.enqueue_count == 1
        return first and not audit.enqueued

    def _sent_for(self, audit: Audit, copy: Copy) -> bool:
        return audit.state == PENDING and audit.epoch == copy.epoch

    def _let_go_to(self, audit: Audit, copy: Copy) -> bool:
        running = audit.state == RUNNING and audit.epoch == copy.epoch - 1
        return running and audit.claim_id == copy.claim_id

    def _held_by(self, audit: Audit, held: Held) -> bool:
        return audit.epoch == held.token and audit.claim_id == held.claim_id

    def _belongs_to(self, audit: Audit, holder: Held | Copy) -> bool:
        if isinstance(holder, Copy):
            return self._sent_for(audit, holder)
        return audit.state in OPEN and self._held_by(audit, holder)

    def _as_read(self, audit: Audit, stale: Monitor) -> bool:
        return audit.state == stale.state and audit.epoch == stale.epoch and stale.unchanged

    def _as_marked(self, audit: Audit, marked: Monitor) -> bool:
        return audit.state == PENDING and audit.epoch == marked.epoch and marked.unchanged


#: Their names.
TRANSITIONS = frozenset(name for name in vars(Transitions) if not name.startswith("_"))
