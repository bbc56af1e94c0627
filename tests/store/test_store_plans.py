"""How many statements there are, and that the index serves them beside many finished audits."""

from datetime import timedelta

FINISHED = 100_000


def fill(store, rows):
    """Insert finished audits by doubling one, as fast as any database can."""
    rows.complete()
    audit = store.audit
    fields = [field for field in audit._meta.sorted_fields if field.name != "id"]
    count = 1
    while count < FINISHED:
        columns = [f.concat(f"-{count}") if f.name == "message_id" else f for f in fields]
        half = audit.select(*columns).order_by(audit.id).limit(min(count, FINISHED - count))
        count += audit.insert_from(half, fields).as_rowcount().execute(store.database)


def test_the_index_serves_the_monitor_beside_a_hundred_thousand_finished_audits(
    store, rows, statements, plan, analyze, clock
):
    fill(store, rows)
    analyze()
    rows.enqueue()
    clock.move(hours=1)
    del statements[:]
    assert len(store.stale(500)) == 1
    ages = {"retention": timedelta(days=1), "dead_retention": timedelta(days=14)}
    assert store.cleanup(500, **ages) == 0
    assert len(store.latest(50)) == 1
    assert len(store.with_broker(500, created_by=rows.clock())) == 1
    assert store.reach(500)
    due, cleanup, latest, _, with_broker, reach = statements
    for statement in (due, latest, with_broker):
        assert "durable_audits_due" in plan(statement)
    for statement in (cleanup, reach):
        assert "durable_audits_finished" in plan(statement)


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
