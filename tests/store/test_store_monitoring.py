"""What the monitor's transitions write, and both sides of their boundaries."""

from datetime import timedelta

import pytest

from dramatiq_durable.models import DEAD, PENDING, RUNNING
from dramatiq_durable.store.base import PUSH_LEASE

from .conftest import BACKOFF, JOB_TIMEOUT, LEASE

NO_TIME = timedelta(0)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def marked(store, rows, clock, backoff=MINUTE):
    new = rows.enqueue()
    clock.move(hours=1)
    return store.mark(rows.stale(new.message_id), backoff)


def test_an_audit_is_stale_from_its_due_at_on(store, rows, clock):
    rows.enqueue()
    clock.move(seconds=(JOB_TIMEOUT + BACKOFF).total_seconds() - 1)
    assert store.stale(10) == []
    clock.move(seconds=1)
    assert len(store.stale(10)) == 1


def test_the_oldest_stale_audits_come_first_and_no_more_than_asked_for(store, rows, clock):
    due = [rows.enqueue(delay=timedelta(seconds=s)).message_id for s in (30, 10, 20, 40)]
    clock.move(hours=1)
    found = [stale.message_id for stale in store.stale(3)]
    assert found == [due[1], due[2], due[0]]


def test_six_hundred_audits_in_long_backoff_do_not_hide_a_stale_one(store, rows, clock):
    for _ in range(600):
        rows.enqueue(backoff=DAY)
    new = rows.enqueue()
    clock.move(hours=1)
    assert [stale.message_id for stale in store.stale(500)] == [new.message_id]


def test_a_mark_gives_a_push_lease_and_counts_the_send(store, rows, clock):
    new = rows.enqueue()
    clock.move(hours=1)
    stale = rows.stale(new.message_id)
    before = rows.clock()
    changed = rows.changed(new.message_id, lambda: store.mark(stale, MINUTE))
    # The monitor carries the clock on from before its SELECT was under way.
    latest = rows.clock() + timedelta(seconds=1)
    rounding = timedelta(milliseconds=1)  # of SQLite's clock
    assert before - rounding <= changed.pop("due_at") - PUSH_LEASE <= latest
    assert changed == {"enqueue_count": 2, "backoff": 60_000_000, "enqueued_at": None}


def test_a_mark_of_a_running_audit_counts_the_crash(store, rows, clock):
    held = rows.claim()
    clock.move(seconds=LEASE.total_seconds() + 1)
    stale = rows.stale(held.message_id)
    assert stale.state == RUNNING
    changed = rows.changed(held.message_id, lambda: store.mark(stale, MINUTE))
    assert (changed["state"], changed["crash_count"]) == (PENDING, 1)
    assert "epoch" not in changed


def test_of_two_monitors_one_marks(store, rows, clock):
    new = rows.enqueue()
    clock.move(hours=1)
    first, second = rows.stale(new.message_id), rows.stale(new.message_id)
    assert store.mark(first, MINUTE)
    assert store.mark(second, MINUTE) is None


def test_of_two_monitors_that_miss_a_delayed_message_one_marks(store, rows):
    new = rows.enqueue(delay=DAY)
    [first], [second] = (store.with_broker_among([new.message_id]) for _ in range(2))
    mark = store.mark(first, BACKOFF)
    assert store.confirm(mark, "b1")
    assert rows.of(new.message_id)["due_at"] == second.due_at  # as if nothing had happened
    assert store.mark(second, BACKOFF) is None
    assert store.load(second) is None


def test_a_confirmed_push_is_due_after_timeout_and_backoff(store, rows, clock):
    mark = marked(store, rows, clock)
    message_id = mark.stale.message_id
    changed = rows.changed(message_id, lambda: store.confirm(mark, "b9"))
    assert changed["enqueued_at"] == mark.due_at - PUSH_LEASE
    assert changed["due_at"] - changed["enqueued_at"] == JOB_TIMEOUT + MINUTE
    assert changed["broker_message_id"] == "b9"


def test_a_delayed_push_is_due_after_its_delay_too(store, rows):
    new = rows.enqueue(delay=DAY)
    [lost] = store.with_broker_among([new.message_id])
    mark = store.mark(lost, MINUTE)
    assert store.confirm(mark, None)
    row = rows.of(new.message_id)
    assert row["enqueued_at"] == row["scheduled_at"] == row["created_at"] + DAY
    assert row["due_at"] - row["enqueued_at"] == JOB_TIMEOUT + MINUTE


def test_a_push_that_failed_gives_the_send_back(store, rows, clock):
    mark = marked(store, rows, clock)
    before = rows.clock()
    changed = rows.changed(mark.stale.message_id, lambda: store.unmark(mark, MINUTE, "refused"))
    assert before <= changed.pop("due_at") - MINUTE <= rows.clock()
    assert changed == {"enqueue_count": 1, "last_error": "refused"}


def test_a_message_that_cannot_be_sent_waits_for_its_backoff_with_the_error(store, rows, clock):
    mark = marked(store, rows, clock)
    before = rows.clock()
    changed = rows.changed(mark.stale.message_id, lambda: store.set_aside(mark, ValueError("no")))
    assert before <= changed.pop("due_at") - MINUTE <= rows.clock()
    assert changed == {"last_error": "ValueError: no"}


def test_an_expired_audit_is_dead_and_keeps_its_payload(store, rows, clock):
    new = rows.enqueue()
    clock.move(hours=1)
    stale = rows.stale(new.message_id)
    changed = rows.changed(new.message_id, lambda: store.expire(stale, "too old"))
    assert changed.pop("finished_at") is not None
    assert changed == {"state": DEAD, "due_at": None, "last_error": "too old"}
    assert rows.of(new.message_id)["payload"] == b"payload"


@pytest.mark.parametrize("end", ["complete", "cancel", "kill"])
def test_cleanup_deletes_from_the_retention_on(store, rows, clock, end):
    message_id = getattr(rows, end)()
    ages = {"retention": DAY, "dead_retention": DAY}
    clock.move(seconds=DAY.total_seconds() - 1)
    assert store.count_expired(**ages) == store.cleanup(10, **ages) == 0
    clock.move(seconds=1)
    assert store.count_expired(**ages) == 1
    assert store.cleanup(10, **ages) == 1
    assert rows.of(message_id) is None


@pytest.mark.failure("41")
def test_cleanup_never_deletes_an_open_audit(store, rows, clock):
    rows.enqueue()
    rows.claim()
    clock.move(days=10_000)
    assert store.cleanup(10, retention=NO_TIME, dead_retention=NO_TIME) == 0
    assert len(store.list_audits()) == 2


def test_dead_audits_have_a_retention_of_their_own_or_stay_for_ever(store, rows, clock):
    rows.kill()
    clock.move(days=10)
    assert store.cleanup(10, retention=DAY, dead_retention=None) == 0
    assert store.cleanup(10, retention=DAY, dead_retention=11 * DAY) == 0
    assert store.cleanup(10, retention=DAY, dead_retention=10 * DAY) == 1


def test_the_retention_of_a_delayed_job_counts_from_its_start(store, rows, clock):
    rows.cancel(delay=2 * DAY)
    clock.move(seconds=3 * DAY.total_seconds() - 1)
    assert store.cleanup(10, retention=DAY, dead_retention=DAY) == 0
    clock.move(seconds=1)
    assert store.cleanup(10, retention=DAY, dead_retention=DAY) == 1


def test_cleanup_deletes_a_batch_at_a_time(store, rows, clock):
    for _ in range(5):
        rows.complete()
    clock.move(days=2)
    ages = {"retention": DAY, "dead_retention": DAY}
    assert [store.cleanup(2, **ages) for _ in range(4)] == [2, 2, 1, 0]


def test_an_audit_retried_since_its_id_was_read_is_not_deleted(store, rows, clock, monkeypatch):
    message_id = rows.kill()
    clock.move(days=2)
    execute = store._execute

    def retried_meanwhile(query):
        result = execute(query)
        if rows.of(message_id)["state"] == DEAD:
            assert list(store.retry([message_id])) == [1]
        return result

    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", lambda q: (patch.undo(), retried_meanwhile(q))[1])
        assert store.cleanup(10, retention=DAY, dead_retention=DAY) == 0
    assert rows.of(message_id)["state"] == PENDING


@pytest.mark.failure("45")
def test_two_namespaces_in_one_table_do_not_touch_each_other(db, make_store, rows_of, clock):
    ours, theirs = make_store(db, namespace="ours"), make_store(db, namespace="theirs")
    ours.create_tables()
    open_id = rows_of(theirs).enqueue().message_id
    dead_id = rows_of(theirs).kill()
    clock.move(days=100)
    assert ours.stale(10) == []
    assert ours.cleanup(10, retention=NO_TIME, dead_retention=NO_TIME) == 0
    assert list(ours.cancel([open_id])) == [0]
    assert list(ours.retry([dead_id])) == [0]
    assert ours.list_audits() == []
    assert ours.get(open_id) is None
    assert ours.tallies() == []
    assert ours.oldest_stale() is None
    assert len(theirs.list_audits()) == 2
