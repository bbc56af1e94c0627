"""A message with a key is enqueued unless an open audit has that."""

from datetime import timedelta

import peewee
import pytest

from dramatiq_durable.connections import Connections
from dramatiq_durable.errors import DurableError
from dramatiq_durable.models import Audit
from dramatiq_durable.store import Store

FINISH = ["complete", "kill", "cancel"]


@pytest.fixture
def holder(store, rows):
    """A pending audit with the key ``k``."""
    new = rows.new(unique_key="k")
    assert store.enqueue_unless_open(new) is None
    return new


@pytest.fixture
def finish(store, rows):
    """``finish(new, how="complete")``: end the job of an audit."""

    def finish(new, how="complete"):
        if how == "cancel":
            assert list(store.cancel([new.message_id])) == [1]
            return
        held = rows.claim(new.message_id)
        assert store.complete([held]) == set() if how == "complete" else store.dead(held, "no")

    return finish


def test_without_a_key_it_is_enqueue(store, rows):
    new = rows.new()
    assert store.enqueue_unless_open(new) is None
    assert store.enqueue_unless_open(new) == new.message_id
    assert rows.of(new.message_id)["unique_key"] is None


@pytest.mark.parametrize("state", ["pending", "running"])
def test_while_an_audit_with_the_key_is_open_there_is_no_other_and_it_stays_as_it_is(
    store, rows, holder, state
):
    if state == "running":
        rows.claim(holder.message_id)
    before = rows.of(holder.message_id)
    assert before["state"] == state
    other = rows.new(unique_key="k", payload=b"other", delay=timedelta(hours=1))
    assert store.enqueue_unless_open(other) == holder.message_id
    assert rows.of(other.message_id) is None
    assert rows.of(holder.message_id) == before


def test_a_job_that_has_failed_is_open_still(store, rows, holder):
    store.release(rows.claim(holder.message_id), "boom")
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == holder.message_id


@pytest.mark.parametrize("how", FINISH)
def test_a_finished_audit_keeps_its_key_until_the_next_message_with_it(
    store, rows, holder, finish, how
):
    key = rows.of(holder.message_id)["unique_key"]
    finish(holder, how)
    before = rows.of(holder.message_id)
    assert before["unique_key"] == key
    after = rows.new(unique_key="k")
    assert store.enqueue_unless_open(after) is None
    assert rows.of(after.message_id)["unique_key"] == key
    assert rows.of(holder.message_id) == {**before, "unique_key": None}


def test_a_message_that_is_enqueued_again_has_its_audit_already(store, rows, holder, finish):
    assert store.enqueue_unless_open(holder) == holder.message_id
    finish(holder)
    before = rows.of(holder.message_id)
    assert store.enqueue_unless_open(holder) == holder.message_id
    assert rows.of(holder.message_id) == before


def test_a_message_whose_key_another_has_got_is_enqueued_again_in_vain(store, rows, holder, finish):
    finish(holder)
    other = rows.new(unique_key="k")
    assert store.enqueue_unless_open(other) is None
    assert store.enqueue_unless_open(holder) == other.message_id
    finish(other)
    assert store.enqueue_unless_open(holder) == holder.message_id


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("key", "KEY"),
        ("key", "key "),
        ("key", " key"),
        ("é", "e\u0301"),
        ("ß", "ss"),
        ("🐘", "🐍"),
        ("\x00", "\x00\x00"),
        ("\ud800", "\ud801"),
        ('"', '\\"'),
        (100_000 * "k", 100_000 * "k" + "k"),
    ],
    ids=["case", "trailing space", "leading space", "accents", "ß", "emoji", "nul", "surrogates",
         "quotes", "long"],
)  # fmt: skip
def test_keys_that_differ_in_anything_are_two_and_equal_ones_are_one(store, rows, one, another):
    news = [rows.new(unique_key=key) for key in (one, another)]
    assert [store.enqueue_unless_open(new) for new in news] == [None, None]
    again = [store.enqueue_unless_open(rows.new(unique_key=key)) for key in (one, another)]
    assert again == [new.message_id for new in news]


def test_a_key_is_of_an_actor_in_a_namespace(store, rows, rows_of, db, make_store):
    assert store.enqueue_unless_open(rows.new(actor_name="ab", unique_key="c")) is None
    assert store.enqueue_unless_open(rows.new(actor_name="a", unique_key="bc")) is None
    assert store.enqueue_unless_open(rows.new(actor_name="a", unique_key='", "c')) is None
    other = make_store(db, namespace="another")
    assert other.enqueue_unless_open(rows_of(other).new(actor_name="ab", unique_key="c")) is None


def test_a_dead_job_that_is_retried_has_its_key_again(store, rows, holder, finish):
    finish(holder, "kill")
    assert list(store.retry([holder.message_id])) == [1]
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == holder.message_id


def test_a_dead_job_whose_key_another_has_got_is_retried_without_one(store, rows, holder, finish):
    finish(holder, "kill")
    other = rows.new(unique_key="k")
    assert store.enqueue_unless_open(other) is None
    assert list(store.retry([holder.message_id])) == [1]
    assert rows.of(holder.message_id)["state"] == "pending"
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == other.message_id
    finish(other)
    assert store.enqueue_unless_open(rows.new(unique_key="k")) is None


def test_a_dead_job_that_is_retried_in_that_moment_keeps_its_key(
    store, rows, holder, finish, db, other_db, make_store
):
    finish(holder, "kill")
    operator = make_store(other_db)

    def retry_once(event):
        if event.sql.startswith("SELECT"):
            db.query_hooks.remove(retry_once)
            assert list(operator.retry([holder.message_id])) == [1]

    db.query_hooks.append(retry_once)
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == holder.message_id
    assert retry_once not in db.query_hooks


def test_with_the_audit_its_key_is_deleted(store, rows, holder, finish, clock):
    finish(holder)
    clock.move(days=2)
    assert store.cleanup(9, retention=timedelta(days=1), dead_retention=None) == 1
    assert store.enqueue_unless_open(rows.new(unique_key="k")) is None


def test_an_adopted_audit_has_its_key_if_no_other_open_one_has(store, rows, holder, finish):
    late = rows.new(unique_key="k")
    store.adopt(late, 4)
    row = rows.of(late.message_id)
    assert (row["epoch"], row["unique_key"]) == (4, None)
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == holder.message_id

    finish(holder)
    later = rows.new(unique_key="k")
    store.adopt(later, 5)
    assert rows.of(later.message_id)["epoch"] == 5
    assert store.enqueue_unless_open(rows.new(unique_key="k")) == later.message_id
    store.adopt(later, 6)
    assert rows.of(later.message_id)["epoch"] == 5


def test_it_takes_one_statement_two_where_one_is_open_and_four_where_one_is_finished(
    store, rows, finish, statements
):
    def costs(new, expected):
        del statements[:]
        assert store.enqueue_unless_open(new) == expected
        return [event.sql.split()[0] for event in statements]

    new = rows.new(unique_key="k")
    assert costs(new, None) == ["INSERT"]
    assert costs(rows.new(unique_key="k"), new.message_id) == ["INSERT", "SELECT"]
    finish(new)
    assert costs(rows.new(unique_key="k"), None) == ["INSERT", "SELECT", "UPDATE", "INSERT"]


def test_the_statement_of_a_message_without_a_key_does_not_name_the_column(store, rows, statements):
    rows.enqueue()
    assert ["unique_key" in event.sql for event in statements] == [False]


def test_the_holder_is_found_by_the_index(store, rows, statements, plan, analyze):
    for number in range(1_000):
        rows.enqueue() if number % 10 else store.enqueue_unless_open(
            rows.new(unique_key=str(number))
        )
    analyze()
    del statements[:]
    assert store.enqueue_unless_open(rows.new(unique_key="0")) is not None
    [_, select] = statements
    assert "durable_audits_unique_key" in plan(select)


def test_a_constraint_on_another_column_is_an_error(db, rows, store):
    class Limited(Audit):
        tenant = peewee.IntegerField(null=True, unique=True)

        class Meta:
            table_name = "limited_audits"

    Limited.bind(db)
    limited = Store(Limited, "tests", Connections(db))
    limited.create_tables()
    new = rows.new(unique_key="1", columns={"tenant": 1})
    assert limited.enqueue_unless_open(new) is None
    with pytest.raises(DurableError, match="constraint"):
        limited.enqueue_unless_open(rows.new(unique_key="2", columns={"tenant": 1}))
    limited.connections.close()
