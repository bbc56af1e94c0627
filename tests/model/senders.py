"""What the sender does next."""

from __future__ import annotations

from collections.abc import Callable

from .state import (
    COMMITTED,
    ELECTED,
    GONE,
    IN_TRANSACTION,
    INSERTED,
    NEW,
    PUSHED,
    PUSHED_EARLY,
    RAISED,
    REFUSED,
    REFUSED_LATE,
    SENT,
    UNASKED,
    WITHDRAWING,
    Sender,
)
from .step import Step
from .turn import Changes, Turn

DONE: Changes = {"sender": Sender(SENT)}


def steps(turn: Turn) -> None:
    phase = turn.sender.phase
    if phase in RULES:
        RULES[phase](turn)
        if phase != NEW and turn.budget.sender_dies:
            turn.add(Step("sender", "dies", spend="sender_dies"), sender=Sender(GONE))


def _sends(turn: Turn) -> None:
    if turn.protocol.inserts_before_push:
        _enqueue(turn, Sender(INSERTED, unchanged=True))
    else:
        turn.add(Step("sender", "push"), sender=Sender(PUSHED), push=turn.copy(0))


def _enqueue(turn: Turn, then: Sender) -> None:
    after = turn.protocol.enqueue(turn.audit, in_transaction=False)
    turn.statement(Step("sender", "enqueue"), after, taken={"sender": then}, refused=DONE)
    if turn.budget.insert_fails:
        fails = Step("sender", "raise", spend="insert_fails")
        turn.add(fails, sender=Sender(RAISED))


def _pushes(turn: Turn) -> None:
    _push(turn, "push", SENT, REFUSED)
    if turn.budget.refused_by_middleware:
        refused = Step("sender", "refused by a middleware", spend="refused_by_middleware")
        turn.add(refused, sender=Sender(WITHDRAWING))


def _push(turn: Turn, what: str, done: str, refused: str) -> None:
    copy = turn.copy(0)
    turn.add(Step("sender", what), sender=Sender(done), push=copy)
    if turn.budget.push_refused:
        fails = Sender(refused, turn.sender.unchanged)
        turn.add(Step("sender", "push refused", spend="push_refused"), sender=fails)
        lost = Step("sender", "push done, its answer lost", spend="push_refused")
        turn.add(lost, sender=fails, push=copy)


def _notes_refusal(turn: Turn) -> None:
    late = turn.sender.phase == REFUSED_LATE
    after = turn.protocol.push_refused(turn.audit, turn.sender, in_transaction=late)
    turn.statement(Step("sender", "push_refused"), after, taken=DONE, refused=DONE)


def _withdraws(turn: Turn) -> None:
    ends: Changes = {"sender": Sender(RAISED)}
    if turn.protocol.withdraws:
        after = turn.protocol.withdraw(turn.audit)
        turn.statement(Step("sender", "withdraw"), after, taken=ends, refused=ends)
    else:
        turn.add(Step("sender", "raise"), **ends)


def _ends_transaction(turn: Turn) -> None:
    protocol = turn.protocol
    if not protocol.pushes_after_commit and turn.sender.phase == IN_TRANSACTION:
        turn.add(Step("sender", "push"), sender=Sender(PUSHED_EARLY), push=turn.copy(0))
        return
    after = protocol.enqueue(turn.audit, in_transaction=True)
    sender = Sender(COMMITTED if protocol.elects_sender else UNASKED, unchanged=True)
    if turn.sender.phase == PUSHED_EARLY:
        sender = Sender(PUSHED)
    turn.statement(Step("sender", "commit"), after, taken={"sender": sender}, refused=DONE)
    if turn.budget.rollback:
        # Peewee calls back after the commit for a savepoint that was rolled back, too.
        left = None if protocol.inserts_in_transaction else after
        turn.add(Step("sender", "roll the send back", spend="rollback"), sender=sender, write=left)


def _begins_push(turn: Turn) -> None:
    after = turn.protocol.begin_push(turn.audit, turn.sender)
    elected = {"sender": Sender(ELECTED)}
    ends = {"sender": Sender(RAISED)} if turn.past.unsent else DONE
    turn.statement(Step("sender", "begin_push"), after, taken=elected, refused=ends)


def _notes_push(turn: Turn) -> None:
    if not turn.protocol.inserts_before_push:
        _enqueue(turn, Sender(SENT))
    elif turn.protocol.notes_push:
        after = turn.protocol.pushed(turn.audit)
        turn.statement(Step("sender", "pushed"), after, taken=DONE, refused=DONE)
    else:
        turn.add(Step("sender", "return"), **DONE)


RULES: dict[str, Callable[[Turn], None]] = {
    NEW: _sends,
    IN_TRANSACTION: _ends_transaction,
    PUSHED_EARLY: _ends_transaction,
    INSERTED: _pushes,
    REFUSED: _notes_refusal,
    WITHDRAWING: _withdraws,
    COMMITTED: _begins_push,
    ELECTED: lambda turn: _push(turn, "push", PUSHED, REFUSED_LATE),
    UNASKED: lambda turn: _push(turn, "push unasked", PUSHED, REFUSED_LATE),
    PUSHED: _notes_push,
    REFUSED_LATE: _notes_refusal,
}
