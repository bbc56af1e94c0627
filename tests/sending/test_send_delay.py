"""A delay of any length is kept, and counts against neither timeout nor expiration."""

import time
from datetime import timedelta

import peewee
import pytest
from dramatiq.common import current_millis

from dramatiq_durable import durable_actor

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def declare(ran):
    def declare(**options):
        @durable_actor(**options)
        def charge(order_id):
            ran.append(order_id)

        return charge

    return declare


@pytest.mark.failure(8)
@pytest.mark.parametrize("delay", [5 * HOUR, 5 * DAY, 8 * DAY, 60 * DAY])
def test_a_delayed_message_is_not_sent_again_before_its_eta_is_long_past(
    redis_durable, redis_broker, declare, ran, delay, work, monitor, clock, audit_of, waiting
):
    charge = declare(job_timeout=HOUR / 6)
    message = charge.send_with_options(args=(42,), delay=delay)
    audit = audit_of(message)
    assert audit.due_at == audit.created_at + delay + timedelta(minutes=11)
    assert waiting(redis_broker, "default.DQ") == 1

    clock.move(seconds=delay.total_seconds() + 10 * 60)
    done = monitor.run_once()
    assert (done.recovered, done.dead, done.deleted) == (0, 0, 0)
    audit = audit_of(message)
    assert (audit.state, audit.enqueue_count) == ("pending", 1)
    assert waiting(redis_broker, "default.DQ") == 1


@pytest.mark.failure(8)
@pytest.mark.parametrize("delay", [5 * HOUR, 5 * DAY, 8 * DAY])
def test_a_delayed_message_that_the_broker_lost_runs_after_its_eta(
    broker, durable, declare, ran, delay, work, monitor, clock, audit_of
):
    charge = declare()
    message = charge.send_with_options(args=(42,), delay=delay)
    broker.flush_all()

    clock.move(seconds=delay.total_seconds(), minutes=11)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(8)
def test_a_message_delayed_beyond_its_job_timeout_runs_once_at_its_eta(
    broker, durable, declare, ran, running_worker, monitor, audit_of, eventually
):
    charge = declare(job_timeout=100, heartbeat_interval=50, backoff=lambda count: timedelta(0))
    passes = []
    with running_worker():
        sent = time.monotonic()
        message = charge.send_with_options(args=(42,), delay=700)
        eventually(lambda: passes.append(monitor.run_once()) or ran)
        assert time.monotonic() - sent >= 0.7
        eventually(lambda: audit_of(message).state == "completed")
    assert {done.recovered for done in passes} == {0}
    assert ran == [42]


@pytest.mark.failure(8)
@pytest.mark.failure(3)
def test_a_delay_that_the_broker_refuses_is_kept_by_the_monitor(
    refusing_broker, sqlite_db, make_durable, declare, ran, work, monitor, clock, audit_of
):
    """Redis' documentation limits a delay to 7 days, Amazon's SQS to 15 minutes."""
    make_durable(refusing_broker, sqlite_db)
    charge = declare()

    def too_long(message, delay):
        if delay is not None and delay > 7 * DAY / timedelta(milliseconds=1):
            raise ValueError("messages cannot be delayed for longer than 7 days")
        return False

    refusing_broker.refuses = too_long
    message = charge.send_with_options(args=(42,), delay=8 * DAY)
    for _ in range(4):
        clock.move(days=1, hours=23)
        assert monitor.run_once().recovered == 0
    work()
    assert ran == []

    clock.move(hours=5)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert audit_of(message).enqueue_count == 1


@pytest.mark.failure(8)
def test_a_delay_of_zero_is_no_delay(broker, durable, declare, ran, work, audit_of):
    charge = declare()
    message = charge.send_with_options(args=(42,), delay=0)
    audit = audit_of(message)
    assert audit.scheduled_at == audit.created_at
    work()
    assert ran == [42]


@pytest.mark.failure(6)
@pytest.mark.failure(8)
def test_a_delayed_message_that_was_committed_but_not_pushed_runs_a_push_lease_after_its_eta(
    stub_durable, sqlite_db, declare, ran, monitor, clock, work
):
    charge = declare()

    def fail():
        raise OSError("the callback before ours fails, and Peewee drops ours")

    with pytest.raises((OSError, peewee.OperationalError)), sqlite_db.atomic():
        sqlite_db.after_commit(fail)
        charge.send_with_options(args=(42,), delay=2 * HOUR)
    clock.move(hours=2)
    assert monitor.run_once().recovered == 0

    clock.move(seconds=60)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]


@pytest.mark.failure(8)
@pytest.mark.parametrize("kind", [int, float])
def test_an_eta_without_a_delay_counts_as_one(
    stub_broker, stub_durable, declare, ran, monitor, clock, work, audit_of, kind
):
    """Dramatiq's consumers wait for it, too."""
    eta = kind(current_millis() + 7_200_000)
    message = declare().send_with_options(args=(42,), eta=eta)
    audit = audit_of(message)
    assert timedelta(0) <= audit.created_at + 2 * HOUR - audit.scheduled_at < HOUR
    stub_broker.flush_all()

    clock.move(hours=2, minutes=10)
    assert monitor.run_once().recovered == 0
    clock.move(minutes=1)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]


@pytest.mark.parametrize("eta", [None, "tomorrow", 1, -1])
def test_an_eta_that_is_none_or_past_is_no_delay(stub_durable, declare, audit_of, eta):
    audit = audit_of(declare().send_with_options(args=(42,), eta=eta))
    assert audit.scheduled_at == audit.created_at
