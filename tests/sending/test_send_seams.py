"""Sends that other middleware refuses, or makes, and sends of processes without actors."""

# mypy: disable-error-code="call-overload"

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import MiddlewareError

from dramatiq_durable import AuditWriteFailed, DurableError, DurableMiddleware, durable_actor


class RefuseOnce(dramatiq.Middleware):
    """Refuses the first message to an actor."""

    def __init__(self, actor_name):
        self.actor_name = actor_name
        self.refused = 0

    def before_enqueue(self, broker, message, delay):
        if message.actor_name == self.actor_name and not self.refused:
            self.refused += 1
            raise MiddlewareError("not now")


@pytest.fixture
def ran():
    return []


@pytest.fixture(params=["before", "after"])
def refuse(request, stub_broker, stub_durable):
    refuse = RefuseOnce("charge")
    stub_broker.add_middleware(refuse, **{request.param: type(stub_durable)})
    return refuse


def test_a_message_that_another_middleware_refused_may_be_enqueued_again(
    stub_broker, stub_durable, refuse, ran, work, audits, audit_of
):
    charge = durable_actor(ran.append, actor_name="charge")
    message = charge.message(42)
    with pytest.raises(MiddlewareError, match="not now"):
        stub_broker.enqueue(message)
    assert audits(stub_durable) == []

    stub_broker.enqueue(message)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(14)
def test_a_pipeline_step_that_another_middleware_refused_once_runs(
    stub_broker, refuse, ran, work, monitor, clock
):
    @durable_actor
    def first():
        ran.append("first")

    @durable_actor
    def charge(result):
        ran.append("charge")

    (first.message() | charge.message()).run()
    work()
    assert ran == ["first"]
    clock.move(minutes=1)
    monitor.run_once()
    work()
    assert refuse.refused == 1
    assert ran == ["first", "first", "charge"]


# Processes without actors


def durable_message(**options):
    return dramatiq.Message(
        queue_name="default", actor_name="elsewhere", args=(42,), kwargs={}, options=options
    )


@pytest.mark.parametrize("where", ["message", "middleware"])
def test_a_process_without_actors_audits_what_it_sends(
    broker, sqlite_db, make_durable, audits, where
):
    durable = make_durable(broker, sqlite_db, durable=where == "middleware")
    broker.declare_queue("default")
    message = broker.enqueue(durable_message(durable=True if where == "message" else None))
    assert [audit.message_id for audit in audits(durable)] == [message.message_id]


def test_a_middleware_that_comes_after_the_queues_audits_what_is_sent(
    stub_broker, sqlite_db, make_durable, audits
):
    stub_broker.declare_queue("default")
    durable = make_durable(stub_broker, sqlite_db, durable=True)
    message = stub_broker.enqueue(durable_message())
    assert [audit.message_id for audit in audits(durable)] == [message.message_id]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq", "rabbitmq-confirm"], indirect=True)
def test_a_durable_message_without_a_queue_is_refused_rather_than_sent_without_an_audit(
    broker, sqlite_db, make_durable, audits, waiting
):
    durable = make_durable(broker, sqlite_db, durable=True)
    message = durable_message()
    with pytest.raises(DurableError, match="declare its queue"):
        broker.enqueue(message)
    assert audits(durable) == []
    assert waiting(broker) == 0

    broker.enqueue(message)
    assert [audit.message_id for audit in audits(durable)] == [message.message_id]


def test_a_message_that_is_not_durable_needs_no_declared_queue(
    redis_broker, sqlite_db, make_durable, waiting
):
    make_durable(redis_broker, sqlite_db)
    redis_broker.enqueue(durable_message())
    assert waiting(redis_broker) == 1


# Hooks in the threads of consumers


class Alert(dramatiq.Middleware):
    """Sends a message from hooks that run in a consumer's thread."""

    def __init__(self, audit_of):
        self.audit_of = audit_of
        self.found = []

    def after_nack(self, broker, message):
        sent = broker.get_actor("alert").send(message.message_id)
        self.found.append(self.audit_of(sent) is not None)

    before_delay_message = after_nack


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_durable_send_of_a_consumers_hook_has_its_audit_at_once(
    stub_broker, stub_durable, ran, work, audit_of, place
):
    alert = Alert(audit_of)
    stub_broker.add_middleware(alert, **{place: type(stub_durable)})
    durable_actor(ran.append, actor_name="alert")
    dramatiq.actor(lambda: None, actor_name="later")
    unknown = stub_broker.enqueue(durable_message())
    delayed = stub_broker.get_actor("later").send_with_options(delay=1)
    work()
    assert alert.found == [True, True]
    assert sorted(ran) == sorted([unknown.message_id, delayed.message_id])


def test_what_was_delayed_by_a_plain_process_is_moved_and_then_has_its_audit(
    redis_broker, redis_url, sqlite_db, make_durable, ran, work, audits
):
    old = RedisBroker(url=redis_url)
    dramatiq.actor(lambda order_id: None, actor_name="charge", broker=old).send_with_options(
        args=(42,), delay=1
    )
    old.close()
    durable = make_durable(redis_broker, sqlite_db)
    watched = []

    class Watch(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            watched.append([audit.state for audit in audits(durable)])

    redis_broker.add_middleware(Watch())
    durable_actor(ran.append, actor_name="charge")
    work()
    assert ran == [42]
    assert watched == [[]]
    assert [audit.state for audit in audits(durable)] == ["completed"]


# What the database says


def test_the_error_of_a_send_says_why_its_audit_could_not_be_written(stub_broker, tmp_path):
    stub_broker.add_middleware(DurableMiddleware(f"sqlite:///{tmp_path}/missing/audits.db"))
    charge = durable_actor(lambda card: None, actor_name="charge")
    with pytest.raises(
        AuditWriteFailed, match=r"\(the database of audits does not answer"
    ) as caught:
        charge.send("4111")
    assert "nothing was enqueued, so it can be sent again" in str(caught.value)


def test_the_error_of_a_send_repeats_no_text_that_may_hold_arguments(stub_broker, sqlite_db):
    class Broken(DurableMiddleware):
        def audit_failed(self, broker, message, error):
            super().audit_failed(broker, message, ValueError("card 4111"))

    stub_broker.add_middleware(Broken(sqlite_db))
    charge = durable_actor(lambda card: None, actor_name="charge")
    with pytest.raises(AuditWriteFailed, match=r"\(ValueError\)") as caught:
        charge.send("4111")
    assert "4111" not in str(caught.value)


@pytest.mark.failure(14)
def test_a_refusal_of_a_retry_whose_receipt_is_lost_is_counted_once(
    refusing_broker,
    postgres_url,
    make_proxy,
    make_durable,
    running_worker,
    monitor,
    clock,
    eventually,
    audit_of,
):
    proxy = make_proxy(postgres_url)
    make_durable(refusing_broker, proxy.url)

    @durable_actor(max_retries=1)
    def charge():
        raise RuntimeError("no luck")

    message = charge.send()
    refusing_broker.flush_all()
    for _ in range(2):
        clock.move(hours=1)
        monitor.run_once()
        refusing_broker.flush_all()
    clock.move(hours=1)
    monitor.run_once()
    before = audit_of(message).enqueue_count

    def refuse(message, delay):
        proxy.lose_the_reply_to('"enqueue_count" = ')
        return True

    refusing_broker.refuses = refuse
    with running_worker():
        eventually(lambda: proxy.cuts and not refusing_broker.queues["default"].unfinished_tasks)
    assert proxy.cuts == 1
    assert audit_of(message).enqueue_count == before - 1


@pytest.mark.failure(43)
def test_what_is_enqueued_again_is_out_although_its_table_is_gone(
    redis_broker, sqlite_db, make_durable, waiting, caplog
):
    make_durable(redis_broker, sqlite_db)

    @durable_actor
    def charge(order_id):
        raise AssertionError

    message = charge.send(42)
    sqlite_db.execute_sql("DROP TABLE durable_audits")
    redis_broker.enqueue(message)
    assert waiting(redis_broker) == 2
    assert "is not noted" in caplog.text
