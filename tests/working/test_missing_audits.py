"""A copy reaches a worker, and the database has no audit of it, or of a job that is over."""

from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import durable_actor
from dramatiq_durable.messages import epoch_of


@pytest.fixture
def lose_audits(durable, sqlite_db):
    """The database fails over to a copy of itself that has none of the audits."""

    def lose():
        durable.store.audit.delete().execute()
        sqlite_db.close()

    return lose


@pytest.fixture
def charge(durable, ran):
    @durable_actor(queue_name="billing", job_timeout=20_000)
    def charge(order_id):
        ran.append(order_id)

    return charge


@pytest.mark.parity(14)
def test_a_job_whose_audit_was_lost_gets_a_new_one_and_runs(
    charge, lose_audits, ran, work, audit_of, caplog
):
    message = charge.send(42)
    lose_audits()
    assert audit_of(message) is None
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.enqueue_count) == ("completed", 1, 1)
    assert (audit.actor_name, audit.queue_name) == ("charge", "billing")
    assert audit.job_timeout == 20_000_000
    assert f"{message.message_id} had no audit" in caplog.text


@pytest.mark.parity(14)
def test_a_job_with_a_new_audit_is_recovered_like_any_other(
    durable, lose_audits, ran, work, recover, audit_of
):
    @durable_actor(max_retries=0)
    def charge(order_id):
        ran.append(order_id)
        if len(ran) == 1:
            raise RuntimeError("no luck")

    message = charge.send(42)
    lose_audits()
    work()
    assert audit_of(message).state == "pending"
    assert recover(minutes=1).recovered == 1
    assert ran == [42, 42]
    assert audit_of(message).state == "completed"


@pytest.mark.parity(14)
def test_a_copy_without_audit_is_adopted_while_younger_than_half_the_retention(
    charge, lose_audits, ran, clock, work, audit_of
):
    message = charge.send(42)
    lose_audits()
    clock.move(hours=11, minutes=59)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.parity(14)
def test_a_copy_without_audit_is_skipped_from_half_the_retention_on(
    charge, lose_audits, stub_broker, ran, clock, work, audit_of
):
    message = charge.send(42)
    lose_audits()
    clock.move(hours=12)
    work()
    assert ran == []
    assert audit_of(message) is None
    assert stub_broker.dead_letters == []


@pytest.mark.parity(14)
@pytest.mark.parametrize(("hours", "runs"), [(1, [42]), (2, [])])
def test_the_retention_that_counts_is_the_middlewares(
    stub_broker, sqlite_db, make_durable, ran, clock, work, hours, runs
):
    durable = make_durable(stub_broker, sqlite_db, retention=timedelta(hours=3))

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    charge.send(42)
    durable.store.audit.delete().execute()
    sqlite_db.close()
    clock.move(hours=hours)
    work()
    assert ran == runs


@pytest.mark.parametrize(("hours_late", "runs"), [(11.9, [42]), (12, [])])
def test_the_age_of_a_delayed_copy_counts_from_when_it_was_meant_to_start(
    charge, lose_audits, stub_broker, watcher, ran, clock, work, hours_late, runs
):
    charge.send_with_options(args=(42,), delay=5 * 3_600_000)
    [delayed] = watcher.enqueued
    lose_audits()
    stub_broker.flush_all()
    clock.move(hours=5 + hours_late)
    # As a worker moves it from its delay queue at its eta.
    moved = delayed.copy(queue_name="billing")
    del moved.options["eta"]
    stub_broker.enqueue(moved)
    work()
    assert ran == runs


def test_a_retry_does_not_make_a_copy_younger(
    durable, lose_audits, stub_broker, watcher, ran, clock, work, running_worker, eventually
):
    @durable_actor
    def charge():
        ran.append("charge")
        clock.move(hours=6)
        raise dramatiq.Retry(delay=3_600_000)

    charge.send()
    with running_worker():
        eventually(lambda: len(watcher.enqueued) == 2)
    stub_broker.flush_all()
    clock.move(hours=6)
    lose_audits()
    retry = watcher.enqueued[-1].copy(queue_name="default")
    del retry.options["eta"]
    stub_broker.enqueue(retry)
    work()
    assert ran == ["charge"]


def test_a_recovery_does_not_make_a_copy_younger(
    charge, lose_audits, stub_broker, ran, clock, monitor, work
):
    charge.send(42)
    stub_broker.flush_all()
    clock.move(hours=11)
    assert monitor.run_once().recovered == 1
    lose_audits()
    clock.move(hours=1)
    work()
    assert ran == []


def test_the_new_audit_has_the_epoch_of_its_copy(
    durable, lose_audits, watcher, ran, clock, monitor, work, audit_of
):
    @durable_actor(max_retries=0)
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            raise RuntimeError("no luck")

    message = charge.send()
    work()
    clock.move(minutes=1)
    monitor.run_once()
    lose_audits()
    work()
    assert ran == ["charge", "charge"]
    copy = watcher.processed[-1]
    assert epoch_of(copy) == 2
    assert audit_of(message).epoch == 3


def test_copies_without_audit_run_once(charge, lose_audits, stub_broker, ran, work, audit_of):
    message = charge.send(42)
    stub_broker.enqueue(message)
    lose_audits()
    work(threads=2)
    assert ran == [42]
    assert audit_of(message).start_count == 1
