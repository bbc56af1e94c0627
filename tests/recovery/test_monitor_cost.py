"""What a pass costs when there is nothing to do, and one that only looks."""

import pytest

from dramatiq_durable import Monitor, durable_actor


class Fatal(Exception):
    """An error after which there is nothing to retry."""


@pytest.fixture
def table(sqlite_db):
    """``table()``: every value in it."""

    def read():
        with sqlite_db.connection_context():
            return sqlite_db.execute_sql("SELECT * FROM durable_audits ORDER BY id").fetchall()

    return read


@pytest.fixture
def charge(stub_durable):
    @durable_actor(throws=(Fatal,), max_crashes=1)
    def charge(order_id):
        if order_id == "fails":
            raise Fatal

    return charge


@pytest.fixture
def every_case(stub_broker, stub_durable, charge, sqlite_db, clock, work, die_while_running):
    """3 to recover, 2 to give up, 2 to delete, 1 that cannot be sent, and others to leave alone."""
    charge.send("expires")
    stub_broker.flush_all()
    clock.move(hours=1)
    assert Monitor(stub_broker).run_once().recovered == 1
    stub_broker.flush_all()
    for order_id in ("completed", "fails"):
        charge.send(order_id)
    work()
    clock.move(days=15)

    die_while_running(stub_durable, charge.send("crashes"))
    bad = charge.send("bad")
    with sqlite_db.connection_context():
        sqlite_db.execute_sql(
            "UPDATE durable_audits SET payload = x'00' WHERE message_id = ?", (bad.message_id,)
        )
    for order_id in ("first", "second", "third"):
        charge.send(order_id)
    clock.move(hours=1)
    charge.send("waits")
    charge.send("completed")
    stub_broker.flush("default")
    charge.send("fails")
    work()
    assert {a.state for a in stub_durable.store.list_audits()} == {
        "pending",
        "running",
        "completed",
        "dead",
    }


@pytest.mark.failure(30)
@pytest.mark.parity(30)
@pytest.mark.parametrize("batch_size", [2, 500])
def test_a_dry_run_counts_what_a_pass_would_do_and_changes_and_sends_nothing(
    stub_broker, stub_durable, every_case, table, batch_size
):
    before = table()
    dry = Monitor(stub_broker, batch_size=batch_size, dry_run=True)
    first, second = dry.run_once(), dry.run_once()
    assert table() == before
    assert stub_broker.queues["default"].qsize() == 0

    done = Monitor(stub_broker, batch_size=batch_size).run_once()
    assert (done.recovered, done.dead, done.deleted, done.failed) == (3, 2, 2, 1)
    assert first == second == done


def test_a_pass_with_nothing_to_do_is_one_statement_for_recovery_and_one_for_cleanup(
    stub_broker, db, make_durable, declare, work
):
    durable = make_durable(stub_broker, db)
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    work()
    charge.send(42)  # waits

    monitor = Monitor(stub_broker)
    monitor.run_once()
    events = []
    db.query_hooks.append(events.append)
    assert not monitor.run_once()
    db.query_hooks.remove(events.append)
    assert [event.sql.split()[0] for event in events] == ["SELECT", "SELECT"]
    assert ["finished_at" in event.sql for event in events] == [False, True]
    assert len(durable.store.list_audits()) == 4


@pytest.mark.parametrize("stale", [1, 10])
def test_a_recovery_reads_one_payload_and_is_one_mark_and_one_confirm(
    stub_broker, stub_durable, declare, sqlite_db, clock, stale
):
    charge = declare()
    for order_id in range(stale):
        charge.send(order_id)
    clock.move(hours=1)
    monitor = Monitor(stub_broker)
    events = []
    sqlite_db.query_hooks.append(events.append)
    assert monitor.run_once().recovered == stale
    sqlite_db.query_hooks.remove(events.append)
    verbs = [event.sql.split()[0] for event in events]
    assert verbs.count("UPDATE") == 2 * stale
    assert verbs.count("SELECT") == 3 + stale  # with one to see how far the queue has come
