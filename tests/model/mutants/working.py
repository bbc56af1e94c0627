"""Mutants of the worker, its keeper and the copies of Retries."""

from dramatiq_durable.models import COMPLETED, OPEN, PENDING, RUNNING

from ..promises import Broken
from ..protocol import Protocol
from ..state import BODY, LATER, MISSING, NEVER, SOON, Copy, Owed
from .registry import caught


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
