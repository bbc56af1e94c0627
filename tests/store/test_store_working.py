"""What the worker's transitions write."""

from datetime import timedelta

import pytest

from dramatiq_durable.models import CANCELLED, COMPLETED, DEAD, PENDING, RUNNING

MINUTE = timedelta(minutes=1)


def micros(duration):
    return duration // timedelta(microseconds=1)


def test_a_claim_starts_a_run_that_is_due_when_its_lease_is_over(store, rows):
    new = rows.enqueue()
    before = rows.clock()
    changed = rows.changed(
        new.message_id, lambda: store.claim(new.message_id, 0, "c1", worker="w1")
    )
    assert before <= changed["started_at"] <= rows.clock()
    assert changed["due_at"] == changed.pop("started_at") + new.lease
    del changed["due_at"]
    assert changed == {
        "state": RUNNING,
        "epoch": 1,
        "claim_id": "c1",
        "start_count": 1,
        "worker": "w1",
    }


def test_a_worker_brings_the_lease_that_it_will_renew(store, rows):
    new = rows.enqueue()
    held = store.claim(new.message_id, 0, "c1", worker="w1", lease=MINUTE)
    row = rows.of(new.message_id)
    assert row["lease"] == micros(MINUTE)
    assert row["due_at"] == row["started_at"] + MINUTE
    before = rows.clock()
    assert store.heartbeat([held]) == set()
    assert before <= rows.of(new.message_id)["due_at"] - MINUTE <= rows.clock()


def test_a_claim_whose_answer_was_lost_is_found_again(store, rows):
    new = rows.enqueue()
    held = store.claim(new.message_id, 0, "c1", worker="w1")
    assert store.claim(new.message_id, 0, "c1", worker="w1") == held
    assert store.claim(new.message_id, 0, "c2", worker="w1") is None
    assert rows.of(new.message_id)["start_count"] == 1


def test_a_retrys_copy_takes_the_job_that_its_holder_could_not_release(store, rows):
    held = rows.claim()
    retry = store.claim(held.message_id, 2, "c2", parent=held.claim_id, worker="w2")
    assert (retry.token, retry.claim_id) == (3, "c2")
    row = rows.of(held.message_id)
    assert (row["epoch"], row["claim_id"], row["start_count"]) == (3, "c2", 2)
    assert row["due_at"] == row["started_at"] + timedelta(microseconds=row["lease"])
    assert store.complete([held]) == {held}
    assert store.complete([retry]) == set()


def test_a_retrys_copy_takes_nothing_from_another_holder(store, rows):
    held = rows.claim()
    assert store.claim(held.message_id, 2, "c2", parent="another", worker="w2") is None
    assert store.claim(held.message_id, 2, "c2", worker="w2") is None
    assert store.claim(held.message_id, 3, "c2", parent=held.claim_id, worker="w2") is None
    assert store.holds(held)


def test_a_hold_is_held_until_it_is_given_up(store, rows):
    held = rows.claim()
    assert store.holds(held)
    store.release(held, "boom")
    assert not store.holds(held)


def test_a_heartbeat_renews_all_leases_in_one_statement(store, rows, statements):
    holds = [rows.claim(lease=timedelta(seconds=20 + n)) for n in range(100)]
    del statements[:]
    before = rows.clock()
    assert store.heartbeat(holds) == set()
    after = rows.clock()
    assert len([s for s in statements if "UPDATE" in s.sql]) == 1
    assert len(statements) == 3  # and two looks at the clock
    for n, held in enumerate(holds):
        row = rows.of(held.message_id)
        assert before <= row["due_at"] - timedelta(seconds=20 + n) <= after


def test_a_heartbeat_changes_nothing_but_when_the_audit_is_due(store, rows):
    held = rows.claim()
    assert rows.changed(held.message_id, lambda: not store.heartbeat([held])).keys() == {"due_at"}


@pytest.mark.parametrize("act", ["heartbeat", "complete"])
def test_of_many_holds_exactly_the_lost_ones_are_refused(store, rows, act):
    holds = [rows.claim() for _ in range(250)]
    lost = set(holds[::50])
    for held in lost:
        assert store.release(held, "boom")
    assert getattr(store, act)(holds) == lost
    assert getattr(store, act)(sorted(lost, key=str)) == lost


def test_many_completions_are_one_statement(store, rows, statements):
    holds = [rows.claim() for _ in range(100)]
    del statements[:]
    assert store.complete(holds) == set()
    assert len(statements) == 1
    assert {rows.of(held.message_id)["state"] for held in holds} == {COMPLETED}


def test_no_holds_are_no_statement(store, statements):
    assert store.heartbeat([]) == set()
    assert store.complete([]) == set()
    assert statements == []


def test_a_completed_audit_is_never_due_and_its_payload_is_blanked(store, rows):
    held = rows.claim()
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: not store.complete([held]))
    assert before <= changed.pop("finished_at") <= rows.clock()
    assert changed == {"state": COMPLETED, "due_at": None, "payload": b""}


def test_a_late_completion_takes_the_audit_back_from_the_monitor(store, rows, clock):
    held = rows.claim()
    clock.move(hours=1)
    marked = store.mark(rows.stale(held.message_id), MINUTE)
    assert store.heartbeat([held]) == {held}
    assert store.complete([held]) == set()
    assert not store.confirm(marked, "b1")
    assert store.claim(held.message_id, 1, "c2", worker="w2") is None


def test_a_late_completion_is_refused_once_another_worker_has_claimed(store, rows, clock):
    held = rows.claim()
    clock.move(hours=1)
    store.mark(rows.stale(held.message_id), MINUTE)
    assert rows.claim(held.message_id, 1)
    assert store.complete([held]) == {held}
    assert rows.of(held.message_id)["state"] == RUNNING


def test_a_completion_in_a_transaction_is_part_of_it(store, rows, db):
    held, lost = rows.claim(), rows.claim()
    assert store.release(lost, "boom")
    with db.atomic() as transaction:
        assert store.complete_in(db, held)
        assert not store.complete_in(db, lost)
        transaction.rollback()
    assert rows.of(held.message_id)["state"] == RUNNING
    with db.atomic():
        assert store.complete_in(db, held)
    assert rows.of(held.message_id)["state"] == COMPLETED


def test_a_released_job_is_due_after_its_backoff(store, rows):
    held = rows.claim(backoff=MINUTE)
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: store.release(held, ValueError("no")))
    assert before <= changed.pop("due_at") - MINUTE <= rows.clock()
    assert changed == {
        "state": PENDING,
        "epoch": 2,
        "failure_count": 1,
        "enqueued_at": None,
        "last_error": "ValueError: no",
    }


def test_a_job_released_for_a_retry_is_due_when_the_retry_must_be_lost(store, rows):
    held = rows.claim(backoff=MINUTE, job_timeout=2 * MINUTE)
    before = rows.clock()
    assert store.release(held, "no", retry_delay=4 * MINUTE)
    assert before <= rows.of(held.message_id)["due_at"] - 7 * MINUTE <= rows.clock()


def test_a_requeued_job_starts_anew_at_once(store, rows, clock):
    held = rows.claim()
    clock.move(hours=1)
    store.mark(rows.stale(held.message_id), MINUTE)
    held = rows.claim(held.message_id, 1)
    assert rows.of(held.message_id)["crash_count"] == 1
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: store.requeue(held))
    assert before <= changed["due_at"] <= rows.clock()
    assert changed.pop("scheduled_at") == changed.pop("due_at")
    assert changed == {
        "state": PENDING,
        "epoch": 3,
        "enqueue_count": 0,
        "crash_count": 0,
        "requeue_count": 1,
    }


def test_a_dead_audit_keeps_its_payload_and_names_its_error(store, rows):
    held = rows.claim()
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: store.dead(held, KeyError("gone")))
    assert before <= changed.pop("finished_at") <= rows.clock()
    assert changed == {"state": DEAD, "due_at": None, "last_error": "KeyError: 'gone'"}


def test_an_aborted_audit_is_cancelled_and_its_copies_are_refused(store, rows):
    held = rows.claim()
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: store.abort(held))
    assert before <= changed.pop("finished_at") <= rows.clock()
    assert changed == {"state": CANCELLED, "epoch": 2, "due_at": None}
    assert store.claim(held.message_id, 1, "c2", worker="w1") is None


def test_find_reads_everything_but_the_payload(store, rows):
    new = rows.enqueue()
    found = store.find(new.message_id)
    assert (found.message_id, found.epoch, found.state) == (new.message_id, 0, PENDING)
    assert found.payload is None
    assert store.find("unknown") is None
