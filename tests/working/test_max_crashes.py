"""A job that kills its worker: slowed by its backoff, stopped by ``max_crashes``."""

import itertools
from datetime import timedelta

import pytest

from dramatiq_durable import RequeueImmediately, durable_actor
from dramatiq_durable.messages import epoch_of

pytestmark = pytest.mark.failure(24)

LEASE = timedelta(seconds=40)


@pytest.fixture
def charge(durable, ran):
    def declare(**options):
        @durable_actor(**options)
        def charge(order_id):
            ran.append(order_id)

        return charge

    return declare


@pytest.fixture
def die(durable, stub_broker, watcher):
    """``die(message)``: a worker claims the newest copy, and is never seen again; the broker forgets the copy."""
    numbers = itertools.count(1)

    def run(message):
        copy = [m for m in watcher.enqueued if m.message_id == message.message_id][-1]
        claim_id = f"claim {next(numbers)}"
        held = durable.store.claim(
            message.message_id, epoch_of(copy), claim_id, worker="doomed", lease=LEASE
        )
        stub_broker.flush_all()
        return held

    return run


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_after_so_many_crashes_it_is_dead(
    charge, die, ran, clock, monitor, work, audit_of, allowed
):
    message = charge(max_crashes=allowed).send(42)
    for crashes in range(1, allowed):
        assert die(message)
        clock.move(hours=1)
        assert monitor.run_once().recovered == 1
        assert audit_of(message).crash_count == crashes
    assert die(message)
    clock.move(hours=1)
    done = monitor.run_once()
    assert (done.dead, done.recovered) == (1, 0)
    audit = audit_of(message)
    assert (audit.state, audit.due_at, audit.crash_count) == ("dead", None, allowed)
    assert audit.start_count == allowed
    assert f"died {allowed} times" in audit.last_error
    assert b"42" in bytes(audit.payload)
    work()
    assert ran == []


def test_it_runs_when_its_last_allowed_run_does_not_crash(
    charge, die, ran, clock, recover, audit_of
):
    message = charge(max_crashes=2).send(42)
    assert die(message)
    assert recover(minutes=1).recovered == 1
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.crash_count) == ("completed", 1)


def test_failures_and_lost_messages_are_no_crashes(
    durable, stub_broker, ran, work, recover, audit_of
):
    @durable_actor(max_crashes=1, max_retries=0)
    def charge():
        ran.append("charge")
        if len(ran) < 3:
            raise RuntimeError("no luck")

    message = charge.send()
    stub_broker.flush_all()
    recover(minutes=11)
    recover(hours=1)
    recover(hours=1)
    assert len(ran) == 3
    audit = audit_of(message)
    assert (audit.state, audit.crash_count, audit.failure_count) == ("completed", 0, 2)


def test_without_max_crashes_it_comes_back_until_its_expiration(
    charge, die, clock, monitor, audit_of
):
    message = charge().send(42)
    for n in range(1, 10):
        assert die(message)
        clock.move(minutes=n**3 + 1)
        assert monitor.run_once().recovered == 1
        assert audit_of(message).crash_count == n
    assert die(message)
    clock.move(days=3)
    assert monitor.run_once().dead == 1


def test_it_may_be_set_for_one_message(durable, charge, die, clock, monitor):
    message = charge(max_crashes=5).send_with_options(args=(42,), max_crashes=1)
    assert die(message)
    clock.move(hours=1)
    assert monitor.run_once().dead == 1


def test_it_may_be_set_for_all_actors(stub_broker, sqlite_db, make_durable, clock, monitor):
    durable = make_durable(stub_broker, sqlite_db, max_crashes=1)

    @durable_actor
    def charge():
        pass

    message = charge.send()
    assert durable.store.claim(message.message_id, 0, "claim", worker="doomed")
    clock.move(hours=1)
    assert monitor.run_once().dead == 1


def test_an_operator_may_bring_it_back(
    charge, durable, die, ran, clock, monitor, recover, audit_of
):
    message = charge(max_crashes=1).send(42)
    assert die(message)
    clock.move(hours=1)
    assert monitor.run_once().dead == 1
    assert sum(durable.store.retry([message.message_id])) == 1
    assert recover(seconds=0).recovered == 1
    assert ran == [42]
    assert audit_of(message).state == "completed"


# The backoff


def test_the_first_crash_is_recovered_at_the_end_of_the_lease(
    charge, die, clock, monitor, audit_of
):
    message = charge().send(42)
    assert die(message)
    audit = audit_of(message)
    assert audit.due_at - audit.started_at == LEASE
    clock.move(seconds=38)
    assert monitor.run_once().recovered == 0
    clock.move(seconds=2)
    assert monitor.run_once().recovered == 1


def test_each_further_crash_waits_for_the_backoff_of_its_enqueue_count(
    charge, die, clock, monitor, audit_of
):
    message = charge().send(42)
    assert die(message)
    clock.move(seconds=40)
    assert monitor.run_once().recovered == 1
    for minutes in (8, 27, 64, 125):
        assert die(message)
        audit = audit_of(message)
        assert audit.due_at - audit.started_at == LEASE + timedelta(minutes=minutes)
        clock.move(minutes=minutes, seconds=38)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=2)
        assert monitor.run_once().recovered == 1


def test_a_copy_that_the_broker_delivers_again_at_once_waits_for_the_monitor(
    charge, die, stub_broker, ran, recover, work, audit_of
):
    message = charge().send(42)
    assert die(message)
    for _ in range(20):
        stub_broker.enqueue(message)
    work()
    assert ran == []
    assert audit_of(message).start_count == 1
    recover(seconds=40)
    assert ran == [42]


def test_a_job_that_asks_to_be_run_again_is_forgiven_its_crashes(
    durable, die, ran, clock, monitor, recover, audit_of
):
    @durable_actor(max_crashes=3)
    def charge():
        ran.append("charge")
        raise RequeueImmediately

    message = charge.send()
    for _ in range(2):
        assert die(message)
        clock.move(hours=1)
        monitor.run_once()
    assert audit_of(message).crash_count == 2
    recover(seconds=0)
    assert ran == ["charge"]
    assert audit_of(message).crash_count == 0
    monitor.run_once()
    assert die(message)
    audit = audit_of(message)
    assert audit.due_at - audit.started_at == LEASE
