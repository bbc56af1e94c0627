"""Mutants of the sender."""

from dramatiq_durable.models import OPEN

from ..promises import Broken
from ..protocol import Protocol
from ..state import LATER, MISSING, NOW, SOON
from .registry import caught


@caught("a failed insert", Broken.RAN_UNSENT)
class PushThenInsert(Protocol):
    inserts_before_push = False


@caught("a refused push", Broken.OVERLAP)
class PushRefusedUnguarded(Protocol):
    def push_refused(self, audit, sender, *, in_transaction):
        return audit._replace(due=NOW) if audit.state in OPEN else None


@caught("refused by a middleware", Broken.RAN_UNSENT)
class NotWithdrawn(Protocol):
    withdraws = False


@caught("a transaction rolled back", Broken.RAN_UNSENT)
class InsertBesideTheTransaction(Protocol):
    inserts_in_transaction = False


@caught("a transaction rolled back", Broken.RAN_UNSENT)
class PushBeforeCommit(Protocol):
    pushes_after_commit = False


@caught("a slow transaction", Broken.PUSHED_TWICE)
class PushWithoutBeginPush(Protocol):
    elects_sender = False


@caught("a transaction rolled back", Broken.RAN_UNSENT)
class PushForASavepointRolledBack(PushWithoutBeginPush):
    """Peewee calls back after the commit for it, too."""


@caught("a slow transaction", Broken.PUSHED_TWICE)
class BeginPushUnguarded(Protocol):
    def begin_push(self, audit, sender):
        return None if audit == MISSING else audit._replace(due=SOON)


@caught("a transaction", Broken.PUSHED_FOR_NOTHING)
class PushedMissing(Protocol):
    notes_push = False


@caught("a slow transaction", Broken.STARTED_AFTER_END)
class PushedUnguarded(Protocol):
    def pushed(self, audit):
        return None if audit == MISSING else audit._replace(due=LATER)


@caught("a transaction", Broken.SLOW_RECOVERY)
class TransactionWithoutPushLease(Protocol):
    def enqueue(self, audit, *, in_transaction):
        return super().enqueue(audit, in_transaction=False)
