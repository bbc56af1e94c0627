"""How many statements there are, and that the index serves them beside many finished audits."""

from datetime import timedelta

import pytest

FEW, MANY = 1_000, 100_000
AGES = {"retention": timedelta(days=1), "dead_retention": timedelta(days=14)}


def fill(store, count, number):
    """Have *number* finished audits where there are *count*, by doubling, as fast as any database can."""
    audit = store.audit
    fields = [field for field in audit._meta.sorted_fields if field.name != "id"]
    while count < number:
        columns = [f.concat(f"-{count}") if f.name == "message_id" else f for f in fields]
        half = audit.select(*columns).where(audit.state == "completed")
        half = half.order_by(audit.id).limit(min(count, number - count))
        count += audit.insert_from(half, fields).as_rowcount().execute(store.database)


@pytest.mark.failure(42)
def test_a_pass_visits_as_many_rows_beside_many_finished_audits_as_beside_few(
    store, rows, statements, plan, visited, analyze, clock
):
    rows.complete()
    fill(store, 1, FEW)
    waiting = rows.enqueue(backoff=timedelta(days=1))
    lost = rows.enqueue()
    clock.move(hours=1)
    now = rows.clock()

    def a_pass():
        """What it takes, statement by statement; nothing is sent, so that the next finds it as it was."""
        analyze()
        del statements[:]
        [stale] = store.stale(500)
        assert stale.message_id == lost.message_id
        assert store.load(stale)
        assert store.cleanup(500, **AGES) == 0
        assert len(store.latest(50)) == 1
        assert len(store.with_broker(500, created_by=now)) == 2
        assert store.reach(50)
        return [(plan(event), visited(event)) for event in statements[:]]

    few = a_pass()
    fill(store, FEW, MANY)
    many = a_pass()
    assert rows.of(waiting.message_id)["state"] == "pending"
    assert [rows_visited for _, rows_visited in many] == [rows_visited for _, rows_visited in few]
    due, _, cleanup, latest, with_broker, reach = (each for each, _ in many)
    for each in (due, latest, with_broker):
        assert "durable_audits_due" in each
    for each in (cleanup, reach):
        assert "durable_audits_finished" in each


@pytest.mark.failure(42)
def test_a_batch_of_very_many_stale_audits_is_read_in_order_without_sorting_the_rest(
    store, rows, statements, plan, analyze, clock
):
    rows.enqueue()
    analyze()  # since then the database knows of one that is due
    audit = store.audit
    own = {"message_id": lambda n: audit.message_id.concat(f"-{n}"), "due_at": audit.due_at.__add__}
    fields = [field for field in audit._meta.sorted_fields if field.name != "id"]
    for doubled in range(14):
        columns = [own[f.name](2**doubled) if f.name in own else f for f in fields]
        audit.insert_from(audit.select(*columns), fields).as_rowcount().execute(store.database)
    clock.move(hours=1)
    first = store.stale(500)
    del statements[:]
    second = store.stale(500, after=first[-1])
    assert len(first) == len(second) == 500
    assert first[-1].due_at < second[0].due_at
    [batch] = statements
    assert not {"sort", "temp"} & set(plan(batch).lower().split())


def test_each_transition_is_one_statement(store, rows, statements, clock):
    def costs(transition):
        del statements[:]
        assert transition()
        return len(statements)

    new = rows.new()
    assert costs(lambda: store.enqueue(new)) == 1
    assert costs(lambda: rows.claim(new.message_id)) == 1
    held = rows.claim()
    assert costs(lambda: store.heartbeat([held]) == set()) == 1
    assert costs(lambda: store.release(held, "boom")) == 1
    clock.move(hours=1)
    assert costs(lambda: store.stale(500)) == 1
    stale = rows.stale(held.message_id)
    assert costs(lambda: store.load(stale)) == 1
    assert costs(lambda: store.mark(stale, timedelta(0))) == 1
    assert costs(lambda: not store.cleanup(9, retention=timedelta(9), dead_retention=None)) == 1
