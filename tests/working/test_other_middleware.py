"""What other middleware does to a message on its way to the body."""

# mypy: disable-error-code="call-overload, method-assign"

import logging
import threading

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import MiddlewareError, SkipMessage

from dramatiq_durable import durable_actor


@pytest.fixture(params=["before", "after"])
def place(request, stub_broker, durable):
    """``place(middleware)``: add it before, or after, ours."""

    def place(middleware):
        stub_broker.add_middleware(middleware, **{request.param: type(durable)})
        return middleware

    return place


@pytest.fixture
def charge(ran):
    @durable_actor(max_retries=0)
    def charge(order_id):
        ran.append(order_id)

    return charge


class Fail(dramatiq.Middleware):
    def before_process_message(self, broker, message):
        message.fail()


def test_a_message_that_another_middleware_fails_is_dead_with_its_payload(
    place, charge, ran, work, audit_of, stub_broker
):
    place(Fail())
    message = charge.send(42)
    work()
    audit = audit_of(message)
    assert ran == []
    assert audit.state == "dead"
    assert b"42" in bytes(audit.payload)


class PutBack(dramatiq.Middleware):
    """Sends each message to the end of its queue once, as a throttle does."""

    def __init__(self, **options):
        self.options = options
        self.seen = set()

    def before_process_message(self, broker, message):
        if message.message_id not in self.seen:
            self.seen.add(message.message_id)
            broker.enqueue(message, **self.options)
            raise SkipMessage


@pytest.mark.parametrize("options", [{}, {"delay": 1}], ids=["at once", "delayed"])
def test_a_message_that_another_middleware_puts_back_runs(
    place, charge, ran, work, audit_of, options
):
    place(PutBack(**options))
    messages = [charge.send(order_id) for order_id in (1, 2)]
    work()
    assert ran == [1, 2]
    assert [audit_of(message).state for message in messages] == ["completed"] * 2


class SkipSecond(PutBack):
    """Puts a message back, and skips it for good when it comes again."""

    def before_process_message(self, broker, message):
        super().before_process_message(broker, message)
        raise SkipMessage


def test_a_message_that_is_put_back_and_then_skipped_is_cancelled(
    place, charge, ran, work, audit_of
):
    place(SkipSecond())
    message = charge.send(1)
    work()
    assert ran == []
    assert audit_of(message).state == "cancelled"


class Hold(dramatiq.Middleware):
    """After ours: keeps a claimed message from its body for a while."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def before_process_message(self, broker, message):
        self.reached.set()
        assert self.go.wait(30)


@pytest.mark.failure(29)
def test_a_job_that_is_cancelled_between_its_claim_and_its_body_does_not_start(
    stub_broker, durable, ran, running_worker, eventually, audit_of, caplog
):
    hold = Hold()
    stub_broker.add_middleware(hold)

    @durable_actor(heartbeat_interval=10)
    def charge():
        ran.append("charge")

    message = charge.send()
    with running_worker(), caplog.at_level(logging.WARNING):
        hold.reached.wait(30)
        assert list(durable.store.cancel([message.message_id])) == [1]
        eventually(lambda: "is lost" in caplog.text)
        hold.go.set()
        stub_broker.join(charge.queue_name)
    assert ran == []
    assert audit_of(message).state == "cancelled"


def test_an_actor_that_enqueues_its_own_message_is_told_what_to_do_instead(
    stub_broker, durable, work, audit_of
):
    said = []

    @durable_actor(max_retries=0)
    def charge():
        running = dramatiq.middleware.CurrentMessage.get_current_message()
        try:
            stub_broker.enqueue(running)
        except MiddlewareError as error:
            said.append(str(error))

    stub_broker.add_middleware(dramatiq.middleware.CurrentMessage())
    message = charge.send()
    work()
    [text] = said
    assert "RequeueImmediately" in text
    assert audit_of(message).state == "completed"


def test_shutdown_interrupts_no_actor_that_is_not_durable(stub_broker, sqlite_db, make_durable):
    make_durable(stub_broker, sqlite_db, requeue_on_shutdown=True)
    plain = dramatiq.actor(lambda: None, actor_name="plain")
    ours = durable_actor(lambda: None, actor_name="ours")
    assert "notify_shutdown" not in plain.options
    assert ours.options["notify_shutdown"] is True


def test_what_was_delayed_before_its_actor_was_durable_runs_whatever_the_audit_says(
    redis_broker, redis_url, sqlite_db, make_durable, ran, work, audits
):
    """Its move from the delay queue must not fail: Dramatiq's consumer would lose it."""
    old = RedisBroker(url=redis_url)
    dramatiq.actor(lambda order_id: None, actor_name="charge", broker=old).send_with_options(
        args=(42,), delay=1
    )
    old.close()
    durable = make_durable(redis_broker, sqlite_db)

    @durable_actor(max_payload_size=1)
    def charge(order_id):
        ran.append(order_id)

    work()
    assert ran == [42]
    assert [audit.state for audit in audits(durable)] == ["completed"]


class FirstAckFails(StubBroker):
    def consume(self, *args, **kwargs):
        consumer = super().consume(*args, **kwargs)
        ack = consumer.ack

        def fail_once(message):
            consumer.ack = ack
            raise ConnectionClosed(OSError("reset by peer"))

        consumer.ack = fail_once
        return consumer


@pytest.mark.failure(49)
def test_the_arguments_of_a_delayed_job_are_not_logged_when_its_move_is_not_acked(
    sqlite_db, make_durable, eventually, monkeypatch, caplog
):
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0)
    broker, done = FirstAckFails(), threading.Event()
    make_durable(broker, sqlite_db)
    charge = durable_actor(lambda card: done.set(), actor_name="charge", broker=broker)
    charge.send_with_options(args=("4111-1111",), delay=1)
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    with caplog.at_level(logging.INFO, logger="dramatiq"):
        worker.start()
        assert done.wait(30)
        worker.stop()
        broker.close()
    assert "ConsumerThread(default.DQ)" in "".join(record.name for record in caplog.records)
    assert "4111" not in caplog.text
