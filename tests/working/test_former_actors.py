"""Copies that were queued before an actor became durable, before it stopped to be, before its audit was purged."""

import dramatiq
import pytest

from dramatiq_durable import durable_actor


@pytest.fixture
def charge(durable, ran):
    @durable_actor(queue_name="billing")
    def charge(order_id):
        ran.append(order_id)

    return charge


# Queued before the actor was durable


@pytest.fixture
def become(stub_broker, ran):
    """``become(decorate)``: the actor as another deploy declares it."""

    def declare(decorate):
        def charge(order_id):
            ran.append(order_id)

        # What the same process cannot declare twice, another one does.
        stub_broker.actors.pop("charge", None)
        return decorate(charge)

    return declare


@pytest.mark.parity(14)
@pytest.mark.parametrize("days", [0, 1, 1000])
def test_a_message_queued_before_its_actor_was_durable_is_adopted_at_any_age(
    durable, become, stub_broker, ran, clock, work, audits, audit_of, days
):
    message = become(dramatiq.actor).send(42)
    assert audits(durable) == []
    become(durable_actor)
    clock.move(days=days)
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.start_count) == ("completed", 1)


def test_a_delayed_message_queued_before_its_actor_was_durable_is_adopted_at_its_eta(
    durable, become, ran, work, audit_of
):
    message = become(dramatiq.actor).send_with_options(args=(42,), delay=50)
    become(durable_actor)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


def test_a_message_of_an_actor_that_is_not_durable_is_not_adopted(
    durable, become, ran, work, audits
):
    become(dramatiq.actor).send(42)
    work()
    assert ran == [42]
    assert audits(durable) == []


# Queued before the actor stopped being durable


@pytest.mark.failure("28c")
def test_an_actor_that_is_not_durable_any_more_completes_its_audits(
    durable, become, ran, work, audit_of
):
    message = become(durable_actor).send(42)
    become(dramatiq.actor)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.failure("28c")
def test_a_lost_message_of_an_actor_that_is_not_durable_any_more_is_recovered(
    durable, become, stub_broker, ran, recover, audit_of
):
    message = become(durable_actor).send(42)
    become(dramatiq.actor)
    stub_broker.flush_all()
    assert recover(minutes=12).recovered == 1
    assert ran == [42]
    assert audit_of(message).state == "completed"


# Purged while copies were queued


@pytest.mark.failure("28c")
@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_nothing_that_is_over_runs_again_when_its_audit_is_purged(
    durable, charge, stub_broker, ran, clock, monitor, work, audit_of, end
):
    message = charge.send(42)
    if end == "completed":
        work()
    else:
        assert list(durable.store.cancel([message.message_id])) == [1]
    assert audit_of(message).state == end
    runs = list(ran)

    clock.move(hours=23, minutes=59)
    assert monitor.run_once().deleted == 0
    clock.move(minutes=2)
    assert monitor.run_once().deleted == 1
    assert audit_of(message) is None
    stub_broker.enqueue(message)
    work()
    assert ran == runs
    assert audit_of(message) is None


@pytest.mark.failure("28c")
def test_a_cancelled_delayed_job_never_starts_though_it_is_purged(
    durable, charge, stub_broker, watcher, ran, clock, monitor, work, audit_of
):
    message = charge.send_with_options(args=(42,), delay=5 * 86_400_000)
    [delayed] = watcher.enqueued
    stub_broker.flush_all()
    assert list(durable.store.cancel([message.message_id])) == [1]

    clock.move(days=5)
    assert monitor.run_once().deleted == 0
    moved = delayed.copy(queue_name="billing")
    del moved.options["eta"]
    stub_broker.enqueue(moved)
    work()
    clock.move(days=1)
    assert monitor.run_once().deleted == 1
    stub_broker.enqueue(moved)
    work()
    assert ran == []
