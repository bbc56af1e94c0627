"""What ``send()`` writes, in which order, and what it costs."""

import sqlite3
from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import durable_actor

MINUTE = timedelta(minutes=1)


@pytest.mark.parity(1)
def test_the_audit_is_committed_before_the_broker_sees_the_message(
    broker, durable, sqlite_db, waiting, eventually
):
    seen = []

    class BeforeThePush(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            other = sqlite3.connect(sqlite_db.database)  # sees what is committed, nothing else
            found = other.execute("SELECT message_id, state FROM durable_audits").fetchall()
            other.close()
            seen.append((found, waiting(broker)))

    broker.add_middleware(BeforeThePush())

    @durable_actor
    def charge(order_id):
        pass

    message = charge.send(42)
    assert seen == [([(message.message_id, "pending")], 0)]
    eventually(lambda: waiting(broker) == 1)


@pytest.mark.parity(2)
@pytest.mark.parity(4)
@pytest.mark.parity(5)
def test_the_audit_has_the_messages_own_id_and_all_that_is_sent(stub_durable, audits, decoded):
    @durable_actor(queue_name="billing")
    def charge(order_id, *, currency):
        pass

    message = charge.send_with_options(args=(42,), kwargs={"currency": "€"}, delay=5000)

    [listed] = audits(stub_durable)
    audit = stub_durable.store.get(message.message_id)
    assert listed.message_id == audit.message_id == message.message_id
    assert (audit.actor_name, audit.queue_name) == ("charge", "billing")  # not billing.DQ
    assert (audit.state, audit.epoch, audit.enqueue_count) == ("pending", 0, 1)
    assert audit.start_count == audit.crash_count == audit.failure_count == 0
    sent = decoded(audit)
    assert sent["message_id"] == message.message_id
    assert (sent["args"], sent["kwargs"]) == ([42], {"currency": "€"})
    assert audit.enqueued_at is not None
    assert audit.scheduled_at == audit.created_at + timedelta(seconds=5)


@pytest.mark.parity(4)
@pytest.mark.parity(6)
def test_an_audit_is_due_after_the_timeout_and_a_minute_of_backoff(stub_durable, audit_of):
    @durable_actor
    def charge():
        pass

    @durable_actor(job_timeout=20 * MINUTE)
    def ship():
        pass

    audit = audit_of(charge.send())
    assert audit.due_at == audit.enqueued_at + 11 * MINUTE
    audit = audit_of(ship.send())
    assert audit.due_at == audit.enqueued_at + 21 * MINUTE


@pytest.mark.parity(3)
def test_a_job_runs_once_and_its_audit_is_completed(broker, durable, charge, ran, work, audit_of):
    message = charge.send(42)
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.enqueue_count) == ("completed", 1, 1)
    assert bytes(audit.payload) == b""


def test_a_send_costs_one_statement(stub_broker, db, make_durable, statements):
    make_durable(stub_broker, db)

    @durable_actor
    def charge(order_id):
        pass

    charge.send(1)  # opens the connection, with what is set at its start
    with statements(db) as events:
        charge.send(2)
    assert [event.sql.split()[0] for event in events] == ["INSERT"]


def test_a_message_of_another_actor_costs_nothing(stub_durable, sqlite_db, statements):
    @dramatiq.actor
    def greet():
        pass

    with statements(sqlite_db) as events:
        greet.send()
    assert events == []


@pytest.mark.failure(7)
@pytest.mark.parity(12)
def test_a_message_enqueued_five_times_has_one_audit_and_one_run(
    broker, durable, charge, ran, work, audits, waiting, eventually
):
    message = charge.message(42)
    for _ in range(5):
        broker.enqueue(message)
    eventually(lambda: waiting(broker) == 5)
    [audit] = audits(durable)
    assert audit.enqueue_count == 1

    work()
    assert ran == [42]
    [audit] = audits(durable)
    assert (audit.state, audit.start_count) == ("completed", 1)


@pytest.mark.failure(7)
def test_a_completed_message_enqueued_again_does_not_run_again(
    broker, durable, charge, ran, work, audit_of
):
    message = charge.send(42)
    work()
    broker.enqueue(message)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(7)
def test_dramatiqs_own_retries_and_delays_use_the_one_audit(broker, durable, work, audits):
    ran = []

    @durable_actor(max_retries=3, min_backoff=10, max_backoff=20)
    def charge(order_id):
        ran.append(order_id)
        if len(ran) < 3:
            raise RuntimeError("not yet")

    charge.send_with_options(args=(42,), delay=10)
    work()
    assert ran == [42, 42, 42]
    [audit] = audits(durable)
    assert (audit.state, audit.enqueue_count, audit.failure_count) == ("completed", 1, 2)


@pytest.mark.failure(7)
def test_the_reconnect_loop_of_rabbitmq_makes_one_audit(
    rabbitmq_broker, sqlite_db, make_durable, work, audits, watch
):
    ran = []
    durable = make_durable(rabbitmq_broker, sqlite_db)
    watcher = watch(rabbitmq_broker)

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    charge.send(1)
    rabbitmq_broker.connection.close()  # as a server does that restarts
    message = charge.send(2)
    assert [m.message_id for m in watcher.enqueued].count(message.message_id) == 2

    assert len(audits(durable)) == 2
    work()
    assert sorted(ran) == [1, 2]
    assert {audit.state for audit in audits(durable)} == {"completed"}
