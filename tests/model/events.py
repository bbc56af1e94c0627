"""What happens to everybody: time, operators, outages."""

from __future__ import annotations

from dramatiq_durable.models import FINISHED, OPEN, PENDING, RUNNING

from .state import (
    COMMITTED,
    CONFIRMING,
    ELECTED,
    FAILED,
    FETCHED,
    INSERTED,
    LATER,
    MARKED,
    NOW,
    PUSHED,
    READ,
    REFUSED,
    REFUSED_LATE,
    RETRY_FAILED,
    RETRYING,
    SETTING_ASIDE,
    SOON,
    TRANSACTION,
    UNASKED,
    UNMARKING,
    WITHDRAWING,
    Audit,
    Worker,
)
from .step import Step
from .turn import Turn

#: Who is about to push, or to write what became of it.
PUSHING = frozenset(
    (INSERTED, REFUSED, WITHDRAWING, COMMITTED, UNASKED, ELECTED, PUSHED, REFUSED_LATE)
)
RECOVERING = frozenset((MARKED, CONFIRMING, UNMARKING, SETTING_ASIDE))


def steps(turn: Turn) -> None:
    _time(turn)
    _operator(turn)
    _broker(turn)
    if turn.budget.failover and turn.world.history:
        _failover(turn)


def _time(turn: Turn) -> None:
    audit = turn.audit
    if audit.due in {SOON, LATER}:
        running_late = audit._replace(due=NOW)
        what = "the lease runs out" if audit.state == RUNNING else "due_at passes"
        step = Step("time", what, spend=_cause(turn))
        if not step.spend or getattr(turn.budget, step.spend):
            turn.add(step, audit=running_late)
    if turn.budget.expires and audit.state in OPEN and not audit.old:
        turn.add(
            Step("time", "past its expiration", spend="expires"), audit=audit._replace(old=True)
        )
    if turn.budget.ages:
        turn.add(Step("time", "the message is old", spend="ages"))
    ripe = turn.past.ancient or not turn.protocol.retention_from_schedule
    if turn.whole.ages and ripe and audit.state in FINISHED and not audit.old:
        turn.add(Step("time", "past its retention"), audit=audit._replace(old=True))


def _cause(turn: Turn) -> str:
    """The budget for something that is slower than it should be, if due_at is to pass now."""
    audit = turn.audit
    processes = turn.world.processes
    if audit.state == RUNNING and audit.due == LATER:
        owed = any(o.claim_id == audit.claim_id for p in processes for o in p.owed)
        held = owed or any(w.claim_id == audit.claim_id for w in turn.holders)
        return "overrun" if held else ""
    if audit.state != RUNNING and turn.bodies and not (turn.past.overrun or turn.past.failed_over):
        return "overrun"
    slow = turn.sender.phase in PUSHING or any(
        m.phase in RECOVERING and m.unchanged for m in turn.world.monitors
    )
    if slow or (audit.due == LATER and _is_under_way(turn)):
        return "backlog"
    return ""


def _is_under_way(turn: Turn) -> bool:
    """A copy that could be claimed now waits somewhere."""
    epoch = turn.audit.epoch
    if any(copy.epoch == epoch for copy in turn.broker):
        return True
    workers = (w for p in turn.world.processes for w in p.workers)
    return any(
        (w.phase == FETCHED and w.copy.epoch == epoch) or w.phase in {RETRYING, RETRY_FAILED}
        for w in workers
    )


def _operator(turn: Turn) -> None:
    for name in ("cancel", "retry"):
        if getattr(turn.budget, name):
            after = getattr(turn.protocol, name)(turn.audit)
            if after is not None:
                turn.statement(Step("operator", name, spend=name), after, taken={}, refused={})


def _broker(turn: Turn) -> None:
    stranded = turn.world.stranded
    if turn.budget.broker_wiped and (turn.broker or stranded):
        turn.add(Step("broker", "loses everything", spend="broker_wiped"), broker=(), stranded=())
    if turn.budget.stranded and turn.broker:
        first, *rest = turn.broker
        step = Step("broker", "strands a copy", copy=first, spend="stranded")
        turn.add(step, broker=tuple(rest), stranded=(*stranded, first))


def _failover(turn: Turn) -> None:
    """The database comes back without its last commits; what was read or marked may be true again."""
    history = turn.world.history
    for lost in range(1, len(history) + 1):
        audit = history[-lost]
        turn.add(
            Step("database", "loses commits", spend="failover"),
            audit=audit,
            history=(),
            sender=turn.sender._replace(unchanged=audit.state == PENDING and audit.epoch == 0),
            monitors=tuple(
                sorted(m._replace(unchanged=_fits(audit, m)) for m in turn.world.monitors)
            ),
            processes=tuple(
                sorted(
                    p._replace(workers=tuple(sorted(map(_rolled_back, p.workers))))
                    for p in turn.world.processes
                )
            ),
        )


def _fits(audit: Audit, monitor) -> bool:
    if monitor.phase == READ and audit.due != NOW:
        return False
    state = monitor.state if monitor.phase == READ else PENDING
    return bool(monitor.state) and (audit.state, audit.epoch) == (state, monitor.epoch)


def _rolled_back(worker: Worker) -> Worker:
    return worker._replace(phase=FAILED) if worker.phase == TRANSACTION else worker
