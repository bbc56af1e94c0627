"""The broker cannot be reached, or its answer is lost."""

import logging
import threading
from datetime import timedelta

import dramatiq
import pytest

DAY = timedelta(days=1)


@pytest.fixture
def durable(far_broker, sqlite_db, make_durable):
    return make_durable(far_broker, sqlite_db)


@pytest.mark.failure(3)
@pytest.mark.parity(9)
@pytest.mark.parametrize("use_of_the_queue", ["first", "later"])
def test_a_send_returns_and_the_job_runs_when_the_broker_is_back(
    far_broker, durable, use_of_the_queue, charge, ran, work, monitor, audit_of, caplog
):
    if use_of_the_queue == "later":
        charge.send(0)
        work()

    far_broker.proxy.down()
    message = charge.send(42)
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("pending", 0)
    [record] = [r for r in caplog.records if message.message_id in r.getMessage()]
    assert record.levelno >= logging.WARNING
    assert record.name.startswith("dramatiq")
    assert "42" not in record.getMessage().replace(message.message_id, "")

    far_broker.proxy.up()
    assert monitor.run_once().recovered == 1
    work()
    assert ran[-1] == 42
    assert ran.count(42) == 1
    audit = audit_of(message)
    assert (audit.state, audit.enqueue_count) == ("completed", 1)


@pytest.mark.failure(3)
def test_an_outage_uses_up_no_backoff(
    far_broker, durable, charge, ran, work, monitor, clock, audit_of
):
    far_broker.proxy.down()
    message = charge.send(42)
    for _ in range(4):
        assert monitor.run_once().recovered == 0
        clock.move(hours=1)
    assert audit_of(message).enqueue_count == 0

    far_broker.proxy.up()
    assert monitor.run_once().recovered == 1
    audit = audit_of(message)
    assert audit.enqueue_count == 1
    assert audit.due_at == audit.enqueued_at + timedelta(minutes=11)
    work()
    assert ran == [42]


@pytest.mark.failure(3)
def test_a_delayed_job_runs_at_its_eta_although_the_broker_was_down(
    far_broker, durable, charge, ran, work, monitor, clock, audit_of
):
    far_broker.proxy.down()
    message = charge.send_with_options(args=(42,), delay=timedelta(hours=2))
    far_broker.proxy.up()
    audit = audit_of(message)
    assert audit.scheduled_at == audit.created_at + timedelta(hours=2)
    assert timedelta(0) <= audit.due_at - audit.scheduled_at < timedelta(seconds=30)

    clock.move(hours=1, minutes=59)
    assert monitor.run_once().recovered == 0
    clock.move(minutes=1, seconds=30)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]


class OutageAtTheMove(dramatiq.Middleware):
    """The network fails when the first message is moved from the delay queue."""

    happened = False

    def before_enqueue(self, broker, message, delay):
        moves = threading.current_thread() is not threading.main_thread()
        if moves and not self.happened:
            self.happened = True
            broker.proxy.down()


@pytest.mark.failure(14)
@pytest.mark.parametrize("is_durable", [True, False])
def test_delayed_messages_are_moved_again_after_an_outage_at_the_moment_of_a_move(
    far_broker, durable, is_durable, running_worker, monitor, clock, eventually, caplog
):
    ran = []

    @dramatiq.actor(durable=is_durable)
    def charge(order_id):
        ran.append(order_id)

    far_broker.add_middleware(OutageAtTheMove())
    charge.send_with_options(args=("much later",), delay=DAY)
    with running_worker():
        charge.send_with_options(args=("first",), delay=100)
        eventually(lambda: "Consumer encountered" in caplog.text)
        far_broker.proxy.up()
        charge.send_with_options(args=("second",), delay=100)
        eventually(lambda: "second" in ran)
        if is_durable:
            clock.move(minutes=11)
            monitor.run_once()
            eventually(lambda: "first" in ran)


@pytest.mark.failure(3)
def test_a_broker_that_is_down_at_the_commit_does_not_disturb_it(
    far_broker, durable, sqlite_db, charge, ran, work, monitor, audit_of, caplog
):
    with sqlite_db.atomic():
        message = charge.send(42)
        far_broker.proxy.down()
    assert audit_of(message).state == "pending"
    assert message.message_id in caplog.text

    far_broker.proxy.up()
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert audit_of(message).enqueue_count == 1


@pytest.mark.failure(2)
@pytest.mark.parametrize("afterwards", ["up", "down"])
@pytest.mark.parametrize("far_broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_a_message_whose_receipt_is_lost_runs_once(
    far_broker, durable, afterwards, charge, ran, work, monitor, clock, audit_of, waiting
):
    charge.send("warm up")
    work()

    far_broker.proxy.lose_the_reply_to("receipt", then_down=afterwards == "down")
    message = charge.send("receipt")
    assert far_broker.proxy.cuts == 1
    assert audit_of(message).state == "pending"

    if afterwards == "down":
        far_broker.proxy.up()
    assert waiting(far_broker) >= 1  # it had arrived
    monitor.run_once()
    work()
    clock.move(minutes=11)
    monitor.run_once()
    work()
    assert ran == ["warm up", "receipt"]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(3)
def test_what_is_sent_during_an_outage_runs_beside_what_is_sent_after_it(
    far_broker, durable, charge, ran, work, monitor, audits
):
    far_broker.proxy.down()
    for order_id in range(5):
        charge.send(order_id)
    far_broker.proxy.up()
    charge.send(5)
    assert sorted(audit.enqueue_count for audit in audits(durable)) == [0, 0, 0, 0, 0, 1]

    work()
    assert ran == [5]
    assert monitor.run_once().recovered == 5
    work()
    assert sorted(ran) == list(range(6))
