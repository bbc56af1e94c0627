"""Protocols that break a promise, each in one thing, and how that is found out."""

from __future__ import annotations

from dataclasses import dataclass

from dramatiq_durable.models import COMPLETED, DEAD, OPEN, PENDING, RUNNING

from .promises import Broken
from .protocol import Protocol
from .state import BODY, LATER, MISSING, NEVER, NOW, SOON, Copy, Owed


@dataclass(frozen=True)
class Mutant:
    protocol: type[Protocol]
    space: str
    caught_by: Broken


MUTANTS: dict[str, Mutant] = {}


def caught(space: str, by: Broken):
    """The mutant must break this promise in that space, and the real protocol none."""

    def note(protocol: type[Protocol]) -> type[Protocol]:
        MUTANTS[protocol.__name__] = Mutant(protocol, space, by)
        return protocol

    return note


# The sender


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


@caught("a transaction rolled back", Broken.RAN_UNSENT)
class PushForASavepointRolledBack(Protocol):
    elects_sender = False


@caught("a slow transaction", Broken.PUSHED_TWICE)
class PushWithoutBeginPush(Protocol):
    elects_sender = False


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


# The worker


@caught("an overrun", Broken.EPOCH_TWICE)
class ClaimKeepsTheEpoch(Protocol):
    def token(self, copy, claimed):
        return claimed.epoch

    def claim(self, audit, copy, claim_id):
        claimed = super().claim(audit, copy, claim_id)
        return claimed and claimed._replace(epoch=copy.epoch)


@caught("retries", Broken.BEFORE_BACKOFF)
class NoEpochInTheCopy(Protocol):
    def token(self, copy, claimed):
        return claimed.epoch

    def claim(self, audit, copy, claim_id):
        return super().claim(audit, Copy(audit.epoch, copy.claim_id), claim_id)


@caught("an overrun", Broken.COMPLETED_TWICE)
class CompleteUnfenced(Protocol):
    def complete(self, audit, held):
        return None if audit == MISSING else audit._replace(state=COMPLETED, due=NEVER)


@caught("an overrun", Broken.STRANGER)
class CompleteByMessageId(Protocol):
    def complete(self, audit, held):
        return audit._replace(state=COMPLETED, due=NEVER) if audit.state in OPEN else None


@caught("expiration", Broken.COMPLETED_AFTER_END)
class CompleteInAnyState(Protocol):
    def complete(self, audit, held):
        return audit._replace(state=COMPLETED, due=NEVER) if self._held_by(audit, held) else None


@caught("an overrun, and a crash", Broken.STRANGER)
class HeartbeatUnfenced(Protocol):
    def heartbeat(self, audit, held):
        return audit._replace(due=LATER) if audit.state == RUNNING else None


@caught("a slow retry", Broken.STRANGER)
class ReleaseUnfenced(Protocol):
    def release(self, audit, held):
        return (
            audit._replace(state=PENDING, epoch=audit.epoch + 1) if audit.state == RUNNING else None
        )


@caught("a failover", Broken.STRANGER)
class NoClaimId(Protocol):
    def _held_by(self, audit, held):
        return audit.epoch == held.token


@caught("retries", Broken.RETRY_STRANDED)
class RetryNotLetIn(Protocol):
    def _let_go_to(self, audit, copy):
        return False


@caught("retries", Broken.RETRY_STRANDED)
class RetryWithItsOldEpoch(Protocol):
    def retry_copy(self, worker):
        return worker.copy._replace(claim_id=worker.claim_id)


@caught("a deep failover", Broken.ROBBED)
class RetryLetInWithoutClaimId(Protocol):
    def _let_go_to(self, audit, copy):
        return bool(copy.claim_id) and audit.state == RUNNING and audit.epoch == copy.epoch - 1


@caught("retries", Broken.EFFECT_TWICE)
class RetryWithAnotherToken(Protocol):
    """The row's epoch rises by one, while the worker takes its copy's epoch + 1 for its token."""

    def claim(self, audit, copy, claim_id):
        claimed = super().claim(audit, copy, claim_id)
        return claimed and claimed._replace(epoch=audit.epoch + 1)


@caught("a refused retry", Broken.OVERLAP)
class RetryRefusedUnguarded(Protocol):
    def retry_refused(self, audit, copy):
        return None if audit == MISSING else audit._replace(due=SOON)


@caught("a lost audit", Broken.LOST)
class DropInsteadOfAdopt(Protocol):
    def adopts(self, past, copy):
        return False


@caught("an old message", Broken.STARTED_AFTER_END)
class AdoptAtAnyAge(Protocol):
    def adopts(self, past, copy):
        return True


@caught("an old message", Broken.STARTED_AFTER_END)
class AdoptByTheAgeOfThePush(Protocol):
    renews_stamps = True


@caught("skips", Broken.BURIED_ALIVE)
class DeadUnguarded(Protocol):
    """What AgeLimit skips is given up, whoever has claimed it."""

    def _belongs_to(self, audit, holder):
        if isinstance(holder, Copy):
            return audit.state in OPEN
        return super()._belongs_to(audit, holder)


@caught("threads", Broken.COMPLETED_UNDONE)
class HeldByMessageId(Protocol):
    """The keeper finds what a skipped copy held by its message_id, and so the claim of another copy."""

    def owed_after_skip(self, process):
        bodies = (w for w in process.workers if w.phase == BODY)
        return next((Owed("complete", w.token, w.claim_id) for w in bodies), None)


@caught("transaction()", Broken.TRANSACTION_TWICE)
class TransactionUnchecked(Protocol):
    checks_transaction = False


# The monitor


@caught("two monitors", Broken.PUSHED_TWICE)
class MarkUnconditional(Protocol):
    def _as_read(self, audit, stale):
        return audit.state in OPEN


@caught("two monitors", Broken.PUSHED_TWICE)
class PushThenMark(Protocol):
    marks_before_push = False


@caught("a dying monitor", Broken.SLOW_RECOVERY)
class MarkWithoutPushLease(Protocol):
    def mark(self, audit, stale):
        marked = super().mark(audit, stale)
        return marked and marked._replace(due=LATER)


@caught("a lost message", Broken.PUSHED_FOR_NOTHING)
class ConfirmMissing(Protocol):
    confirms = False


@caught("refused pushes", Broken.STARTED_AFTER_END)
class ConfirmUnguarded(Protocol):
    def confirm(self, audit, marked):
        return None if audit == MISSING else audit._replace(due=LATER, enqueued=True)


@caught("refused pushes", Broken.STARTED_AFTER_END)
class UnmarkUnguarded(Protocol):
    def unmark(self, audit, marked):
        return None if audit == MISSING else audit._replace(due=SOON)


@caught("refused pushes", Broken.GIVEN_UP_UNSENT)
class UnmarkKeepsTheCount(Protocol):
    def unmark(self, audit, marked):
        left = super().unmark(audit, marked)
        return left and left._replace(enqueue_count=audit.enqueue_count)


@caught("unsendable", Broken.STARTED_AFTER_END)
class SetAsideUnguarded(Protocol):
    def set_aside(self, audit, marked):
        return None if audit == MISSING else audit._replace(due=LATER)


@caught("expiration", Broken.BURIED_ALIVE)
class ExpireUnguarded(Protocol):
    def expire(self, audit, stale):
        return audit._replace(state=DEAD, due=NEVER) if audit.state in OPEN else None


@caught("refused pushes", Broken.GIVEN_UP_UNSENT)
class ExpireUnsent(Protocol):
    def hopeless(self, audit):
        return audit.old


@caught("a broker that tells", Broken.STARTED_AFTER_END)
class HoldUnguarded(Protocol):
    def hold(self, audit):
        return None if audit == MISSING else audit._replace(due=LATER)


@caught("a broker that tells", Broken.LOST)
class HoldForEver(Protocol):
    def holds(self, audit, stale, *, waits):
        return waits and audit.state == stale.state == PENDING


@caught("a broker that tells", Broken.LOST)
class HoldWhatIsGone(Protocol):
    def holds(self, audit, stale, *, waits):
        return audit.state == stale.state == PENDING


@caught("cleanup", Broken.DELETED_OPEN)
class CleanupByIdOnly(Protocol):
    def cleanup(self, audit):
        return None if audit == MISSING else MISSING


@caught("cleanup", Broken.STARTED_AFTER_END)
class CleanupBeforeTheEta(Protocol):
    retention_from_schedule = False


# The operator


@caught("cancelled", Broken.OVERLAP)
class RetryAtOnce(Protocol):
    def retry(self, audit):
        back = super().retry(audit)
        return back and back._replace(due=NOW)


@caught("cancelled", Broken.SMALLER_TOKEN)
class RetryFromEpochZero(Protocol):
    def retry(self, audit):
        back = super().retry(audit)
        return back and back._replace(epoch=0)
