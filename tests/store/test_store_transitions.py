"""Which transition happens from which state; a refused one writes nothing.

One column of FLOW for each step of a row's life, one entry of TRANSITIONS for each arrow in the docstring of the store.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from dramatiq_durable.models import RUNNING
from dramatiq_durable.store import Held, NewAudit
from dramatiq_durable.store.base import PUSH_LEASE
from dramatiq_durable.store.monitoring import Marked, Stale

NO_TIME = timedelta(0)
MINUTE = timedelta(minutes=1)

PENDING = {"pending", "marked", "confirmed"}  # with the epoch of the first copy
OPEN = PENDING | {"running", "released", "recovered", "run by another", "run by a twin"}
FINISHED = {"completed", "dead", "cancelled"}
STATES = ("missing", *sorted(OPEN), *sorted(FINISHED))


@dataclass
class Copy:
    message_id: str
    epoch: int


@dataclass
class Case:
    """A row, and what sender, worker and monitor know of it from its past or, if it has none, would know."""

    new: NewAudit
    mine: Held
    read_pending: Stale
    read_running: Stale
    marked: Marked

    @property
    def message_id(self):
        return self.new.message_id

    def copy(self, epoch):
        return Copy(self.message_id, epoch)


@pytest.fixture
def case_in(store, rows, clock, db):
    """``case_in(state)``: a new row that has come to *state* on the usual way."""

    def read(message_id):
        clock.move(days=1)
        return rows.stale(message_id)

    def make(state, in_transaction):
        new = rows.new()
        if in_transaction:
            with db.atomic():
                assert store.enqueue(new, transaction=db)
        else:
            assert store.enqueue(new)
        message_id = new.message_id
        pending = read(message_id)
        case = Case(
            new=new,
            mine=Held(message_id, 1, f"mine-{message_id}"),
            read_pending=pending,
            read_running=pending._replace(state=RUNNING, epoch=1),
            marked=Marked(pending, pending.now),
        )
        if state == "pending":
            return case
        case.marked = store.mark(pending, MINUTE)
        if state == "marked":
            return case
        assert store.confirm(case.marked, "b1")
        if state == "confirmed":
            return case
        if state == "run by a twin":  # as after a failover that lost the first claim
            assert store.claim(message_id, 0, "twin", worker="w2")
            return case
        assert store.claim(message_id, 0, case.mine.claim_id, worker="w1") == case.mine
        case.read_running = read(message_id)
        arrive(state, case)
        return case

    def arrive(state, case):
        if state == "released":
            assert store.release(case.mine, "boom")
        elif state in ("recovered", "run by another"):
            assert store.mark(case.read_running, MINUTE)
            if state == "run by another":
                assert store.claim(case.message_id, 1, "another", worker="w2")
        elif state in ("completed", "missing"):
            assert store.complete([case.mine]) == set()
            if state == "missing":
                assert store.cleanup(10_000, retention=NO_TIME, dead_retention=None) > 0
        elif state == "dead":
            assert store.dead(case.mine, "boom")
        elif state == "cancelled":
            assert list(store.cancel([case.message_id])) == [1]

    return lambda state, in_transaction=False: make(state, in_transaction)


def claim(epoch, **options):
    return lambda store, case: store.claim(
        case.message_id, epoch, f"new-{case.message_id}", worker="w3", **options
    )


def retry_of_mine(store, case):
    return claim(2, parent=case.mine.claim_id)(store, case)


# What each transition is, and the states from which it happens.
TRANSITIONS: dict[str, tuple[Any, set[str]]] = {
    "enqueue": (lambda store, case: store.enqueue(case.new), {"missing"}),
    "adopt": (lambda store, case: store.enqueue(case.new, epoch=5), {"missing"}),
    "push_refused": (lambda store, case: store.push_refused(case.new), {"pending"}),
    "pushed": (lambda store, case: store.pushed(case.new, "b1"), set()),
    "withdraw": (lambda store, case: store.withdraw(case.message_id), PENDING),
    "retry_refused": (
        lambda store, case: store.retry_refused(case.message_id, 2, MINUTE),
        {"released"},
    ),
    "claim by the first copy": (claim(0), PENDING),
    "claim by the monitor's copy": (claim(1), {"recovered"}),
    "claim by the retry's copy": (retry_of_mine, {"released", "running"}),
    "claim by a stranger's retry": (claim(2, parent="stranger"), {"released"}),
    "claim by a copy of a later epoch": (claim(7), set()),
    "heartbeat": (lambda store, case: not store.heartbeat([case.mine]), {"running"}),
    "complete": (
        lambda store, case: not store.complete([case.mine]),
        {"running", "recovered"},
    ),
    "release": (lambda store, case: store.release(case.mine, "boom"), {"running"}),
    "release for a retry": (
        lambda store, case: store.release(case.mine, "boom", retry_delay=MINUTE),
        {"running"},
    ),
    "requeue": (lambda store, case: store.requeue(case.mine), {"running"}),
    "dead by its holder": (
        lambda store, case: store.dead(case.mine, "boom"),
        {"running", "recovered"},
    ),
    "dead by its first copy": (lambda store, case: store.dead(case.copy(0), "boom"), PENDING),
    "dead by its retry": (lambda store, case: store.dead(case.copy(2), "boom"), {"released"}),
    "abort by its holder": (lambda store, case: store.abort(case.mine), {"running", "recovered"}),
    "abort by its first copy": (lambda store, case: store.abort(case.copy(0)), PENDING),
    "abort by its retry": (lambda store, case: store.abort(case.copy(2)), {"released"}),
    "mark, read while pending": (
        lambda store, case: store.mark(case.read_pending, MINUTE),
        {"pending"},
    ),
    "mark, read while running": (
        lambda store, case: store.mark(case.read_running, MINUTE),
        {"running"},
    ),
    "confirm": (lambda store, case: store.confirm(case.marked, "b2"), {"marked"}),
    "unmark": (lambda store, case: store.unmark(case.marked, MINUTE, "refused"), {"marked"}),
    "set_aside": (lambda store, case: store.set_aside(case.marked, "corrupt"), {"marked"}),
    "hold, read while pending": (
        lambda store, case: store.hold([case.read_pending]),
        {"pending"},
    ),
    "hold, read while running": (
        lambda store, case: store.hold([case.read_running]),
        {"pending"},
    ),
    "expire, read while pending": (
        lambda store, case: store.expire(case.read_pending, "too old"),
        {"pending"},
    ),
    "expire, read while running": (
        lambda store, case: store.expire(case.read_running, "too old"),
        {"running"},
    ),
    "cleanup": (
        lambda store, case: store.cleanup(10, retention=NO_TIME, dead_retention=NO_TIME),
        FINISHED,
    ),
    "cancel": (lambda store, case: sum(store.cancel([case.message_id])), OPEN),
    "retry": (lambda store, case: sum(store.retry([case.message_id])), {"dead", "cancelled"}),
}

# A completion that was written before is no refusal, for its answer may have been lost;
# and what a failover has lost is nobody else's.
SETTLED = {"complete": {"completed"}, "heartbeat": {"missing"}}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_happens_from_its_states_only_and_a_refused_one_writes_nothing(
    store, rows, case_in, name
):
    transition, expected = TRANSITIONS[name]
    agreed, wrote = set(), set()
    for state in STATES:
        case = case_in(state)
        before = rows.of(case.message_id)
        if transition(store, case):
            agreed.add(state)
        if rows.of(case.message_id) != before:
            wrote.add(state)
    assert wrote == expected
    assert agreed == expected | SETTLED.get(name, set())


@pytest.mark.parametrize(
    ("name", "transition"),
    [
        ("pushed", lambda store, new: store.pushed(new, "b1")),
        ("push_refused", lambda store, new: store.push_refused(new, in_transaction=True)),
    ],
)
def test_the_push_after_a_commit_is_recorded_only_while_nobody_else_has_touched_the_audit(
    store, rows, case_in, name, transition
):
    wrote, awaited = set(), set()
    for state in STATES:
        case = case_in(state, in_transaction=True)
        before = rows.of(case.message_id)
        if store.begin_push(case.new):
            awaited.add(state)
        answer = transition(store, case.new)
        assert answer == (rows.of(case.message_id) != before)
        if answer:
            wrote.add(state)
            assert not store.begin_push(case.new)
    assert wrote == awaited == {"pending"}


def test_a_message_of_no_transaction_awaits_no_push(store, rows):
    assert not store.begin_push(rows.enqueue())


def test_an_audit_enqueued_again_stays_as_it_is(store, rows):
    new = rows.enqueue()
    before = rows.of(new.message_id)
    again = replace(new, payload=b"another", actor_name="other", delay=PUSH_LEASE)
    assert not store.enqueue(again)
    assert not store.enqueue(again, epoch=3)
    assert rows.of(new.message_id) == before
