"""Mutants of the monitor."""

from dramatiq_durable.models import DEAD, OPEN, PENDING

from ..promises import Broken
from ..protocol import Protocol
from ..state import LATER, MISSING, NEVER, SOON
from .registry import caught


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
