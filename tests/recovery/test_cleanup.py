"""Finished audits are deleted after their retention; open ones never are."""

from datetime import timedelta

import pytest

from dramatiq_durable import DurableMiddleware, Monitor, durable_actor

DAY = timedelta(days=1)
FOR_EVER = -1


class Fatal(Exception):
    """An error after which there is nothing to retry."""


@pytest.fixture
def finish(work, audit_of):
    """``finish(durable, end, **options)``: a message whose audit ends as *end*."""

    def finish(durable, end, **options):
        @durable_actor(actor_name=end, throws=(Fatal,))
        def charge():
            if end == "dead":
                raise Fatal

        message = charge.send_with_options(**options)
        if end == "cancelled":
            assert list(durable.store.cancel([message.message_id])) == [1]
        else:
            work()
        assert audit_of(message).state == end
        durable.broker.flush_all()
        return message

    return finish


@pytest.mark.failure(41)
@pytest.mark.parity(28)
@pytest.mark.parametrize(
    ("end", "options", "retention"),
    [
        ("completed", {}, DAY),
        ("cancelled", {}, DAY),
        ("dead", {}, 14 * DAY),
        ("completed", {"retention": 3 * DAY}, 3 * DAY),
        ("cancelled", {"retention": 5 * 86_400_000}, 5 * DAY),
        ("dead", {"retention": 3 * DAY, "dead_retention": 4 * DAY}, 4 * DAY),
        ("dead", {"retention": 3 * DAY, "dead_retention": 3 * DAY}, 3 * DAY),
    ],
)
def test_a_finished_audit_is_deleted_after_its_retention_and_not_before(
    stub_broker, sqlite_db, make_durable, finish, clock, monitor, audit_of, end, options, retention
):
    message = finish(make_durable(stub_broker, sqlite_db, **options), end)
    clock.move(seconds=retention.total_seconds() - 5)
    assert monitor.run_once().deleted == 0
    assert audit_of(message) is not None
    clock.move(seconds=5)
    assert monitor.run_once().deleted == 1
    assert audit_of(message) is None


@pytest.mark.failure(41)
def test_dead_audits_may_be_kept_for_ever(
    stub_broker, sqlite_db, make_durable, finish, clock, monitor, audits
):
    durable = make_durable(stub_broker, sqlite_db, dead_retention=FOR_EVER)
    finish(durable, "dead")
    finish(durable, "completed")
    clock.move(days=10_000)
    assert monitor.run_once().deleted == 1
    assert [audit.state for audit in audits(durable)] == ["dead"]


@pytest.mark.failure(41)
@pytest.mark.parity(28)
def test_open_audits_are_never_deleted_however_old(
    stub_broker, stub_durable, declare, ran, work, clock, monitor, audits, die_while_running
):
    charge = declare()
    die_while_running(stub_durable, charge.send("running"))
    charge.send("pending")
    charge.send_with_options(args=("delayed",), delay=1_000 * DAY)
    stub_broker.flush_all()
    clock.move(days=10_000)
    done = monitor.run_once()
    assert (done.recovered, done.dead, done.deleted) == (3, 0, 0)
    work()
    assert sorted(ran) == ["delayed", "pending", "running"]
    assert monitor.run_once().deleted == 0
    assert len(audits(stub_durable)) == 3


@pytest.mark.parity(28)
def test_the_retention_counts_from_the_end_of_the_job_not_from_its_send(
    stub_broker, stub_durable, declare, work, clock, monitor, audit_of
):
    message = declare().send(42)
    clock.move(days=30)
    work()
    assert monitor.run_once().deleted == 0
    clock.move(days=1)
    assert monitor.run_once().deleted == 1
    assert audit_of(message) is None


@pytest.mark.failure(41)
@pytest.mark.failure("28c")
def test_a_cancelled_job_is_remembered_until_its_delayed_copy_has_come(
    stub_durable, finish, clock, monitor
):
    finish(stub_durable, "cancelled", delay=5 * DAY)
    clock.move(days=6, seconds=-5)
    assert monitor.run_once().deleted == 0
    clock.move(seconds=5)
    assert monitor.run_once().deleted == 1


@pytest.mark.failure(41)
@pytest.mark.parametrize(("batch_size", "statements"), [(1, 5), (2, 3), (500, 1)])
def test_one_pass_deletes_all_in_batches(
    stub_broker, stub_durable, sqlite_db, declare, work, clock, audits, batch_size, statements
):
    charge = declare()
    for order_id in range(5):
        charge.send(order_id)
    work()
    clock.move(days=1)

    deletes = []
    sqlite_db.query_hooks.append(lambda e: e.sql.startswith("DELETE") and deletes.append(e))
    assert Monitor(stub_broker, batch_size=batch_size).run_once().deleted == 5
    assert len(deletes) == statements
    assert audits(stub_durable) == []


def test_a_retention_of_the_dead_below_that_of_the_completed_is_refused(sqlite_db):
    with pytest.raises(ValueError, match="dead_retention"):
        DurableMiddleware(sqlite_db, retention=2 * DAY, dead_retention=DAY)
    with pytest.raises(ValueError, match="dead_retention"):
        DurableMiddleware(sqlite_db, retention=15 * DAY)
    DurableMiddleware(sqlite_db, retention=2 * DAY, dead_retention=FOR_EVER)
