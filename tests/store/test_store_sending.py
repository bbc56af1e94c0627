"""What the sender's transitions write; the times are those of the statement itself."""

from datetime import timedelta

import pytest

from dramatiq_durable.models import PENDING
from dramatiq_durable.store.base import PUSH_LEASE

DELAY = timedelta(hours=5)


def micros(duration):
    return duration // timedelta(microseconds=1)


def test_an_audit_is_due_after_its_delay_timeout_and_backoff(rows):
    before = rows.clock()
    new = rows.enqueue(delay=DELAY, broker_message_id="b1")
    row = rows.of(new.message_id)
    assert before <= row["created_at"] <= rows.clock()
    assert row["enqueued_at"] == row["created_at"]
    assert row["scheduled_at"] == row["created_at"] + DELAY
    assert row["due_at"] == row["scheduled_at"] + new.job_timeout + new.backoff
    assert {name: row[name] for name in row if not name.endswith("_at")} == {
        "id": row["id"],
        "namespace": "tests",
        "message_id": new.message_id,
        "actor_name": "charge",
        "queue_name": "default",
        "state": PENDING,
        "epoch": 0,
        "claim_id": None,
        "enqueue_count": 1,
        "start_count": 0,
        "crash_count": 0,
        "failure_count": 0,
        "requeue_count": 0,
        "job_timeout": micros(new.job_timeout),
        "lease": micros(new.lease),
        "backoff": micros(new.backoff),
        "broker_message_id": "b1",
        "worker": None,
        "last_error": None,
        "payload": b"payload",
        "signature": None,
        "unique_key": None,
    }
    assert row["started_at"] is None
    assert row["finished_at"] is None


def test_an_adopted_audit_has_the_epoch_of_its_copy(store, rows):
    new = rows.new()
    assert store.enqueue(new, epoch=4)
    assert rows.of(new.message_id)["epoch"] == 4


def test_in_a_transaction_an_audit_is_due_after_its_delay_and_a_push_lease(store, rows, db):
    new = rows.new(delay=DELAY)
    with db.atomic():
        assert store.enqueue(new, transaction=db)
    row = rows.of(new.message_id)
    assert row["due_at"] == row["created_at"] + DELAY + PUSH_LEASE
    assert row["scheduled_at"] == row["created_at"] + DELAY
    assert row["enqueued_at"] is None


def test_an_audit_of_a_transaction_is_gone_after_its_rollback(store, rows, db):
    new = rows.new()
    with db.atomic() as transaction:
        assert store.enqueue(new, transaction=db)
        transaction.rollback()
    assert rows.of(new.message_id) is None
    assert not store.begin_push(new)


def test_an_audit_enqueued_again_in_a_transaction_leaves_it_usable(store, rows, db):
    old, new = rows.enqueue(), rows.new()
    with db.atomic():
        assert not store.enqueue(old, transaction=db)
        assert store.enqueue(new, transaction=db)
    assert rows.of(new.message_id) is not None


def test_after_the_push_of_a_transaction_the_audit_is_due_as_any_other(store, rows, db):
    new = rows.new(delay=DELAY)
    with db.atomic():
        store.enqueue(new, transaction=db)
    changed = rows.changed(new.message_id, lambda: store.pushed(new, "b1"))
    assert changed.keys() == {"due_at", "enqueued_at", "broker_message_id"}
    assert changed["broker_message_id"] == "b1"
    assert changed["due_at"] == changed["enqueued_at"] + DELAY + new.job_timeout + new.backoff


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_refused_push_makes_the_audit_due_at_its_start_and_uses_up_no_backoff(
    store, rows, db, in_transaction
):
    new = rows.new(delay=DELAY)
    if in_transaction:
        with db.atomic():
            store.enqueue(new, transaction=db)
    else:
        store.enqueue(new)
    before = rows.clock()
    changed = rows.changed(
        new.message_id, lambda: store.push_refused(new, in_transaction=in_transaction)
    )
    assert changed.pop("enqueued_at", None) is None
    assert changed.keys() == {"due_at", "enqueue_count"}
    assert before <= changed["due_at"] - DELAY <= rows.clock()
    assert changed["enqueue_count"] == 0


def test_a_withdrawn_audit_is_gone_and_its_message_may_be_enqueued_anew(store, rows):
    new = rows.enqueue()
    assert store.withdraw(new.message_id)
    assert rows.of(new.message_id) is None
    assert store.claim(new.message_id, 0, "c1", worker="w1") is None
    assert store.enqueue(new)


def test_an_audit_that_has_been_claimed_is_not_withdrawn(store, rows):
    held = rows.claim()
    before = rows.of(held.message_id)
    assert not store.withdraw(held.message_id)
    assert rows.of(held.message_id) == before


def test_the_id_of_the_newest_copy_is_noted_while_it_waits(store, rows):
    new = rows.enqueue(broker_message_id="b1")
    store.follow(new.message_id, 0, "b2")
    assert rows.of(new.message_id)["broker_message_id"] == "b2"
    store.follow(new.message_id, 1, "of another epoch")
    assert rows.of(new.message_id)["broker_message_id"] == "b2"
    done = rows.complete()
    before = rows.of(done)
    store.follow(done, before["epoch"], "b3")
    assert rows.of(done) == before
    store.follow("unknown", 0, "b4")  # no error


def test_a_retry_that_the_broker_refused_is_due_at_its_time_and_uses_up_no_backoff(store, rows):
    held = rows.claim()
    store.release(held, "boom", retry_delay=DELAY)
    before = rows.clock()
    changed = rows.changed(held.message_id, lambda: store.retry_refused(held.message_id, 2, DELAY))
    assert changed.pop("enqueued_at", None) is None
    assert changed.keys() == {"due_at", "enqueue_count"}
    assert before <= changed["due_at"] - DELAY <= rows.clock()
    assert changed["enqueue_count"] == 0


def test_enqueue_count_never_falls_below_zero(store, rows):
    held = rows.claim()
    store.release(held, "boom", retry_delay=DELAY)
    assert store.retry_refused(held.message_id, 2, DELAY)
    assert not store.retry_refused(held.message_id, 2, DELAY)
    assert rows.of(held.message_id)["enqueue_count"] == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00\x00before and after\x00",
        bytes(range(256)),
        "nul \x00 and 🐘ß漢".encode() * 30_000,
        ("é\x00" * 150_000).encode(),
    ],
    ids=["empty", "nul", "every byte", "unicode of 600 KB", "300,000 characters"],
)
def test_a_payload_comes_back_byte_for_byte(store, rows, clock, payload):
    new = rows.enqueue(payload=payload)
    assert rows.of(new.message_id)["payload"] == payload
    clock.move(days=1)
    assert store.load(rows.stale(new.message_id)).payload == payload


def test_names_keep_their_characters_and_their_case(store, rows):
    for name in ("charge", "Charge", "chargé", "請求🐘", "a'b\"c`d%s\\%%;--"):
        new = rows.enqueue(actor_name=name, queue_name=name, broker_message_id=name)
        row = rows.of(new.message_id)
        assert (row["actor_name"], row["queue_name"], row["broker_message_id"]) == (name,) * 3


def test_message_ids_that_differ_in_case_only_are_two_audits(store, rows):
    assert store.enqueue(rows.new(message_id="abc"))
    assert store.enqueue(rows.new(message_id="ABC"))
    assert rows.claim("abc").message_id == "abc"
    assert rows.of("ABC")["state"] == PENDING


def test_a_message_is_sent_and_its_audit_settled_in_one_statement_each(store, rows, statements):
    new = rows.new()
    store.enqueue(new)
    assert len(statements) == 1
    held = store.claim(new.message_id, 0, "c1", worker="w1")
    assert len(statements) == 2
    store.complete([held])
    assert len(statements) == 3
