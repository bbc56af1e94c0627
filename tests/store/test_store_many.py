"""A monitor's transitions of many audits at once are those of one."""

from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)


@pytest.fixture
def listed(store, rows, clock):
    """``listed(count)``: so many stale audits as a monitor reads them."""

    def make(count, **changes):
        ids = [rows.enqueue(**changes).message_id for _ in range(count)]
        clock.move(minutes=10)
        found = {stale.message_id: stale for stale in store.stale(10_000)}
        return [found[each] for each in ids]

    return make


@pytest.fixture
def columns(rows):
    """``columns(stale)``: what the database has of an audit, but for what no two have in common."""

    def of(stale):
        own = {"id", "message_id", "created_at", "scheduled_at", "due_at", "enqueued_at"}
        return {name: value for name, value in rows.of(stale.message_id).items() if name not in own}

    return of


@pytest.mark.parametrize("count", [2, 3, -1, 0])
def test_what_is_marked_and_confirmed_together_is_as_if_one_by_one(store, listed, columns, count):
    count = count if count > 0 else store.most + count
    alone, *together = listed(count + 1)
    marked = [store.mark(alone, MINUTE), *store.mark_all([(each, MINUTE) for each in together])]
    assert [each.stale for each in marked] == [alone, *together]
    assert all(columns(each) == columns(alone) for each in together)

    assert store.confirm(marked[0], "b1")
    store.confirm_all([(each, "b1") for each in marked[1:]])
    assert all(columns(each) == columns(alone) for each in together)


def test_each_is_confirmed_with_its_own_times_and_id(store, rows, listed):
    [now_due] = listed(1)
    [delayed] = listed(1, delay=timedelta(hours=1), job_timeout=-timedelta(hours=2))
    marked = store.mark_all([(now_due, MINUTE), (delayed, 2 * MINUTE)])
    store.confirm_all([(marked[0], "b1"), (marked[1], None)])
    first, second = (rows.of(each.message_id) for each in (now_due, delayed))
    assert (first["broker_message_id"], second["broker_message_id"]) == ("b1", None)
    assert first["enqueued_at"] == marked[0].starts_at
    assert second["enqueued_at"] == second["scheduled_at"] > first["enqueued_at"]
    assert first["due_at"] == first["enqueued_at"] + timedelta(seconds=30) + MINUTE
    assert second["due_at"] == second["enqueued_at"] - timedelta(hours=2) + 2 * MINUTE


def test_a_crash_is_counted_for_those_that_ran_and_for_no_others(store, rows, listed, clock):
    waits, ran = listed(2)
    rows.claim(ran.message_id)
    clock.move(minutes=10)
    ran = rows.stale(ran.message_id)
    assert len(store.mark_all([(waits, MINUTE), (ran, MINUTE)])) == 2
    assert [rows.of(each.message_id)["crash_count"] for each in (waits, ran)] == [0, 1]
    assert [rows.of(each.message_id)["state"] for each in (waits, ran)] == ["pending"] * 2


def test_what_is_not_as_it_was_read_is_neither_loaded_nor_marked_nor_confirmed(store, rows, listed):
    stale = listed(5)
    assert store.mark(stale[1], MINUTE)
    assert list(store.cancel([stale[3].message_id])) == [1]
    left = [stale[0], stale[2], stale[4]]
    assert [each.message_id for each in store.load_all(stale)] == [e.message_id for e in left]
    assert {each.payload for each in store.load_all(stale)} == {b"payload"}

    before = [rows.of(stale[1].message_id), rows.of(stale[3].message_id)]
    marked = store.mark_all([(each, MINUTE) for each in stale])
    assert [each.stale for each in marked] == left
    assert [rows.of(stale[1].message_id), rows.of(stale[3].message_id)] == before

    claimed = rows.claim(left[1].message_id)
    running = rows.of(claimed.message_id)
    store.confirm_all([(each, "b1") for each in marked])
    assert rows.of(claimed.message_id) == running
    assert rows.of(left[2].message_id)["broker_message_id"] == "b1"


@pytest.mark.failure(39)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_a_row_that_somebody_holds_is_passed_by_and_holds_up_no_other(
    store, rows, listed, other_db
):
    def hold(stale):
        other_db.execute_sql("UPDATE durable_audits SET worker = 'w2' WHERE id = %s", [stale.id])

    stale = listed(4)
    monitors = store.reserved()
    with other_db.atomic() as transaction:
        hold(stale[2])
        marked = monitors.mark_all([(each, MINUTE) for each in stale])
        transaction.rollback()
    assert [each.stale for each in marked] == [stale[0], stale[1], stale[3]]

    with other_db.atomic() as transaction:
        hold(stale[1])
        monitors.confirm_all([(each, "b1") for each in marked])
        transaction.rollback()
    ids = [rows.of(each.message_id)["broker_message_id"] for each in stale]
    assert ids == ["b1", None, None, "b1"]


@pytest.mark.failure(30)
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_what_was_locked_for_a_moment_is_confirmed_all_the_same(
    store, rows, listed, statements, other_db
):
    """A monitor that has lost the mark keeps a row locked until its statement ends."""
    stale = listed(3)
    marked = store.mark_all([(each, MINUTE) for each in stale])
    other_db.begin()
    other_db.execute_sql("SELECT 1 FROM durable_audits WHERE id = %s FOR UPDATE", [stale[1].id])

    def end(event):
        if event.sql.startswith("SELECT"):
            other_db.rollback()

    store.database.query_hooks.append(end)
    store.confirm_all([(each, "b1") for each in marked])
    store.database.query_hooks.remove(end)
    assert {rows.of(each.message_id)["broker_message_id"] for each in stale} == {"b1"}


def test_many_are_a_few_statements(store, listed, statements):
    stale = listed(store.most)
    del statements[:]
    assert len(store.load_all(stale)) == store.most
    assert len(statements) == 1
    marked = store.mark_all([(each, MINUTE) for each in stale])
    assert len(marked) == len(stale)
    assert len(statements) <= 3
    store.confirm_all([(each, "b1") for each in marked])
    assert len(statements) <= 4
