"""What must never happen, judged step by step by one who sees everything."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from dramatiq_durable.models import COMPLETED, FINISHED, OPEN, PENDING, RUNNING

from .state import BODY, COMMITTED, ELECTED, FETCHED, LATER, MARKED, NOW, Audit, Past
from .step import Step

if TYPE_CHECKING:
    from .turn import Turn


class Broken(enum.Enum):
    """A promise that a protocol does not keep."""

    LOST = "the job never ends, whatever happens from here without another fault"
    EPOCH_TWICE = "an epoch was claimed twice"
    OVERLAP = "two bodies run at once, though no lease ran out"
    SMALLER_TOKEN = "a later run has no larger token"
    STRANGER = "one who no longer holds the job wrote its audit"
    COMPLETED_TWICE = "it was completed twice"
    COMPLETED_AFTER_END = "it was completed after it was dead or cancelled"
    COMPLETED_UNDONE = "it was completed before its effect"
    STARTED_AFTER_END = "it started after its end was committed"
    EFFECT_TWICE = "its effect happened twice, and no fault explains it"
    TRANSACTION_TWICE = "the effect of its transaction() happened twice"
    RAN_UNSENT = "it ran though its send was rolled back or raised an error"
    PUSHED_TWICE = "it was pushed twice in one due period"
    PUSHED_FOR_NOTHING = "it was pushed again while a copy waited, and no fault explains it"
    SLOW_RECOVERY = "a death between the election and the push costs more than a push lease"
    BEFORE_BACKOFF = "a stale copy ran, past the backoff of the newer one"
    RETRY_STRANDED = "Dramatiq's retry was skipped for the sake of a holder that had sent it"
    ROBBED = "the job of a live holder was taken for one that its holder gave up"
    BURIED_ALIVE = "it was given up while it ran within its lease"
    GIVEN_UP_UNSENT = "it was given up without having been sent since it was scheduled"
    DELETED_OPEN = "an open audit was deleted"


#: Faults that leave somebody's work to be done again.
EFFECT_EXPLAINED_BY = ("worker_dies", "overrun", "failover", "retry")
#: Faults that make a monitor think that nobody has the message.
PUSH_EXPLAINED_BY = (
    *("worker_dies", "monitor_dies", "sender_dies", "push_refused", "unsendable", "database_fails"),
    *("backlog", "overrun", "failover", "transactions", "retry", "hold"),
)

Broke = list[Broken]


def observed(turn: Turn, step: Step, after: Audit) -> tuple[Past, tuple[Broken, ...]]:
    """The past after *step*, and the promises that it broke."""
    observe = OBSERVERS.get(step.what)
    if observe is None or (step.refused and step.what != "claim"):
        return turn.past, ()
    broke: Broke = []
    past = observe(turn, step, after, broke)
    return past, tuple(broke)


def _claim(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    before, past, bodies = turn.audit, turn.past, turn.bodies
    assert step.copy is not None
    held = before.state == RUNNING and any(w.claim_id == before.claim_id for w in turn.holders)
    if step.refused:
        parent = before.state == RUNNING and before.claim_id == step.copy.claim_id
        if parent and before.due != NOW and not held:
            broke.append(Broken.RETRY_STRANDED)
        return past
    if not past.failed_over:
        if past.claimed >> after.epoch & 1:
            broke.append(Broken.EPOCH_TWICE)
        if past.ended:
            broke.append(Broken.STARTED_AFTER_END)
        if bodies and not past.overrun:
            broke.append(Broken.OVERLAP)
        if any(w.token >= after.epoch for w in bodies):
            broke.append(Broken.SMALLER_TOKEN)
    if held:
        broke.append(Broken.ROBBED)
    if step.copy.epoch < before.epoch:
        broke.append(Broken.BEFORE_BACKOFF)
    if past.unsent:
        broke.append(Broken.RAN_UNSENT)
    return past._replace(claims=past.claims + 1, claimed=past.claimed | 1 << after.epoch)


def _effect(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    if turn.past.effects and not turn.used(*EFFECT_EXPLAINED_BY):
        broke.append(Broken.EFFECT_TWICE)
    return turn.past._replace(effects=min(turn.past.effects + 1, 2))


def _commit(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    if step.who == "sender":
        return turn.past._replace(turn=True)
    if after.effects > 1:
        broke.append(Broken.TRANSACTION_TWICE)
    return turn.past._replace(ended=after.state in FINISHED)


def _held_write(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    if step.copy is None and step.claim_id != turn.audit.claim_id:
        broke.append(Broken.STRANGER)
    if after.state in FINISHED:
        return turn.past._replace(ended=True)
    return turn.past._replace(turn=True) if after.due == NOW else turn.past


def _complete(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    state = turn.audit.state
    if state in FINISHED:
        twice = state == COMPLETED
        broke.append(Broken.COMPLETED_TWICE if twice else Broken.COMPLETED_AFTER_END)
    if any(w.phase == BODY and w.claim_id == step.claim_id for w in turn.bodies):
        broke.append(Broken.COMPLETED_UNDONE)
    return _held_write(turn, step, after, broke)


def _give_up(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    audit = turn.audit
    alive = any(w.claim_id == audit.claim_id != step.claim_id for w in turn.bodies)
    if audit.state == RUNNING and audit.due != NOW and alive:
        broke.append(Broken.BURIED_ALIVE)
    if step.who == "monitor":
        if not turn.past.sent and not turn.used("unsendable", "monitor_dies"):
            broke.append(Broken.GIVEN_UP_UNSENT)
        return turn.past._replace(ended=True)
    return _held_write(turn, step, after, broke)


def _elect(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    """Mark, or begin_push; whoever pushes without them takes the turn all the same."""
    if not turn.past.turn:
        broke.append(Broken.PUSHED_TWICE)
    return turn.past._replace(turn=False)


def _push(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    if step.what == "push unasked":
        _elect(turn, step, after, broke)
    epoch = turn.audit.epoch
    waiting = turn.broker or [
        w.copy for p in turn.world.processes for w in p.workers if w.phase == FETCHED
    ]
    if any(c.epoch == epoch for c in waiting) and not turn.used(*PUSH_EXPLAINED_BY):
        broke.append(Broken.PUSHED_FOR_NOTHING)
    return turn.past._replace(sent=True, turn=turn.past.turn and step.what != "push unasked")


def _overdue(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    overrun = turn.past.overrun or step.spend == "overrun"
    return turn.past._replace(turn=True, overrun=overrun)


def _dies(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    sender, audit = turn.sender, turn.audit
    if step.who == "sender":
        elected = sender.phase == COMMITTED and sender.unchanged
        elected |= sender.phase == ELECTED and audit.epoch == 0 and not audit.enqueued
    else:
        elected = any(m.phase == MARKED and m.unchanged for m in turn.world.monitors)
    waits = audit.state == PENDING and audit.due == LATER
    if elected and waits and not turn.past.failed_over:
        broke.append(Broken.SLOW_RECOVERY)
    return turn.past


def _delete(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    if turn.audit.state in OPEN:
        broke.append(Broken.DELETED_OPEN)
    return turn.past


def _retry(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    return turn.past._replace(ended=False, sent=False, turn=after.due == NOW)


def _failover(turn: Turn, step: Step, after: Audit, broke: Broke) -> Past:
    ended = turn.past.ended and after.state in FINISHED
    return turn.past._replace(failed_over=True, turn=True, ended=ended)


def _note(**what: bool) -> Callable[[Turn, Step, Audit, Broke], Past]:
    return lambda turn, step, after, broke: turn.past._replace(**what)


OBSERVERS: dict[str, Callable[[Turn, Step, Audit, Broke], Past]] = {
    "claim": _claim,
    "effect": _effect,
    "commit": _commit,
    "complete": _complete,
    **dict.fromkeys(("heartbeat", "release", "requeue"), _held_write),
    **dict.fromkeys(("dead", "abort", "expire"), _give_up),
    **dict.fromkeys(("mark", "begin_push"), _elect),
    **dict.fromkeys(("push", "push unasked", "push done, its answer lost"), _push),
    "push_refused": _note(turn=True),
    **dict.fromkeys(("due_at passes", "the lease runs out"), _overdue),
    "hold": _note(turn=False),
    **dict.fromkeys(("withdraw", "raise", "roll the send back"), _note(unsent=True)),
    "cancel": _note(ended=True),
    "retry": _retry,
    "cleanup": _delete,
    "dies": _dies,
    "loses commits": _failover,
    "the message is old": _note(ancient=True),
}
