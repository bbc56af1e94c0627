"""What operators see and do."""

from datetime import timedelta

import pytest

from dramatiq_durable.models import CANCELLED, COMPLETED, DEAD, PENDING
from dramatiq_durable.store import Filters, Tally

from .conftest import BACKOFF, JOB_TIMEOUT, LEASE

MINUTE = timedelta(minutes=1)


def test_audits_are_counted_by_state_queue_and_actor(store, rows, clock):
    rows.enqueue()
    rows.enqueue(delay=timedelta(days=1))
    rows.complete()
    rows.enqueue(actor_name="mail", queue_name="slow")
    clock.move(hours=1)
    assert store.tallies() == [
        Tally(COMPLETED, "default", "charge", 1, 0),
        Tally(PENDING, "default", "charge", 2, 1),
        Tally(PENDING, "slow", "mail", 1, 1),
    ]


def test_the_oldest_stale_audit_has_an_age(store, rows, clock):
    assert store.oldest_stale() is None
    rows.enqueue()
    assert store.oldest_stale() is None
    clock.move(seconds=(JOB_TIMEOUT + BACKOFF + MINUTE).total_seconds())
    assert MINUTE <= store.oldest_stale() < 2 * MINUTE


def test_filters_narrow_the_list(store, rows, clock):
    old = rows.enqueue(actor_name="mail").message_id
    clock.move(hours=1)
    new = rows.enqueue(queue_name="slow").message_id
    dead = rows.kill()

    def listed(**filters):
        return {audit.message_id for audit in store.list_audits(Filters(**filters))}

    assert listed() == {old, new, dead}
    assert listed(states=[DEAD]) == {dead}
    assert listed(states=[DEAD, PENDING]) == {old, new, dead}
    assert listed(actor_name="mail") == {old}
    assert listed(queue_name="slow") == {new}
    assert listed(older_than=MINUTE) == {old}
    assert listed(stale=True) == {old}
    assert listed(message_ids=[new, "unknown"]) == {new}
    assert listed(actor_name="mail", queue_name="slow") == set()
    assert store.ids(Filters(states=[PENDING])) == [old, new]
    assert [audit.message_id for audit in store.list_audits(limit=1)] == [dead]


def test_a_cancelled_job_is_finished_and_what_holds_it_is_refused(store, rows):
    held = rows.claim()
    changed = rows.changed(held.message_id, lambda: list(store.cancel([held.message_id])) == [1])
    assert changed.pop("finished_at") is not None
    assert changed == {"state": CANCELLED, "epoch": 2, "due_at": None}
    assert store.heartbeat([held]) == {held}
    assert store.complete([held]) == {held}


def test_a_dead_job_comes_back_as_if_it_were_new_and_due_now(store, rows, clock):
    held = rows.claim()
    store.release(held, "boom")
    held = rows.claim(held.message_id, 2)
    store.dead(held, "boom")
    clock.move(days=1)
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: list(store.retry([held.message_id])) == [1])
    assert before <= changed["due_at"] == changed.pop("scheduled_at") <= rows.clock()
    assert changed.pop("due_at")
    assert changed == {
        "state": PENDING,
        "epoch": 4,
        "finished_at": None,
        "enqueue_count": 0,
        "failure_count": 0,
    }


def test_a_job_cancelled_while_it_ran_comes_back_when_that_lease_is_over(store, rows):
    held = rows.claim()
    assert list(store.cancel([held.message_id])) == [1]
    finished_at = rows.of(held.message_id)["finished_at"]
    assert list(store.retry([held.message_id])) == [1]
    assert rows.of(held.message_id)["due_at"] == finished_at + LEASE


def test_so_does_one_whose_lease_was_longer_because_it_had_crashed(store, rows, clock):
    held = rows.claim()
    clock.move(seconds=LEASE.total_seconds())
    assert store.mark(rows.stale(held.message_id), BACKOFF)
    held = rows.claim(held.message_id, held.token)
    assert list(store.cancel([held.message_id])) == [1]
    finished_at = rows.of(held.message_id)["finished_at"]
    assert list(store.retry([held.message_id])) == [1]
    assert rows.of(held.message_id)["due_at"] == finished_at + LEASE + BACKOFF


def test_a_job_cancelled_long_ago_comes_back_at_once(store, rows, clock):
    message_id = rows.cancel()
    clock.move(seconds=LEASE.total_seconds())
    before = rows.clock()
    assert list(store.retry([message_id])) == [1]
    assert before <= rows.of(message_id)["due_at"] <= rows.clock()


def test_many_are_acted_on_in_batches(store, rows):
    ids = [rows.enqueue().message_id for _ in range(501)]
    assert list(store.cancel(ids)) == [500, 1]
    assert list(store.cancel(ids)) == [0, 0]
    assert list(store.retry(ids)) == [500, 1]


@pytest.mark.parametrize("payload", [b"", "𝄞\x00é".encode() * 100_000])
def test_any_payload_comes_back_as_it_was(store, rows, payload):
    new = rows.enqueue(payload=payload, actor_name="🐘")
    row = rows.of(new.message_id)
    assert (bytes(row["payload"]), row["actor_name"]) == (payload, "🐘")
