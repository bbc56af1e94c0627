"""Copies of a message that has been sent."""

import dramatiq
import pytest
from dramatiq.middleware import MiddlewareError

from dramatiq_durable import DurableError, durable_actor


@pytest.fixture
def charge(stub_durable):
    @durable_actor
    def charge(order_id):
        pass

    return charge


def test_a_copy_under_a_new_id_has_an_audit_of_its_own(stub_broker, stub_durable, charge, audits):
    sent = charge.send(1)
    copy = stub_broker.enqueue(sent.copy(message_id="copy", args=(2,)))
    assert copy.message_id == "copy"
    found = {audit.message_id: audit for audit in audits(stub_durable)}
    assert found.keys() == {sent.message_id, "copy"}
    stored = dramatiq.Message.decode(bytes(stub_durable.store.get("copy").payload))
    assert (stored.message_id, stored.args) == ("copy", (2,))


class Refuse(dramatiq.Middleware):
    """Refuses what it has seen before."""

    def __init__(self):
        self.seen = set()

    def before_enqueue(self, broker, message, delay):
        if message.message_id in self.seen:
            raise MiddlewareError("sent already")
        self.seen.add(message.message_id)


@pytest.mark.failure(7)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_second_send_that_another_middleware_refuses_leaves_the_first(
    stub_broker, stub_durable, charge, audit_of, place
):
    stub_broker.add_middleware(Refuse(), **{place: type(stub_durable)})
    message = charge.message(1)
    stub_broker.enqueue(message)
    with pytest.raises(MiddlewareError, match="already"):
        stub_broker.enqueue(message)
    assert audit_of(message).state == "pending"


@pytest.mark.failure(7)
def test_a_second_send_that_the_broker_refuses_leaves_when_the_first_is_due(
    refusing_broker, sqlite_db, make_durable, audit_of
):
    make_durable(refusing_broker, sqlite_db)
    charge = durable_actor(lambda order_id: None, actor_name="charge")
    message = charge.message(1)
    refusing_broker.enqueue(message)
    before = audit_of(message)
    refusing_broker.refuses = lambda message, delay: True
    refusing_broker.enqueue(message)
    after = audit_of(message)
    assert (after.due_at, after.enqueue_count) == (before.due_at, before.enqueue_count)


CENTURY = 36_500 * 86_400_000  # milliseconds


def test_a_delay_beyond_the_calendar_is_refused(stub_durable, charge, audits):
    charge.send_with_options(args=(1,), delay=CENTURY)
    with pytest.raises(DurableError, match="delay"):
        charge.send_with_options(args=(1,), delay=CENTURY + 1)
    [audit] = audits(stub_durable)
    assert audit.due_at.year > 2100


def test_another_middlewares_option_of_a_message_may_have_a_name_of_ours(stub_durable, charge):
    assert charge.send_with_options(args=(1,), retention="for ever")


def test_a_queue_that_the_sender_chose_is_that_of_the_re_send_too(
    stub_broker, stub_durable, charge, monitor, clock, waiting
):
    stub_broker.declare_queue("gpu")
    stub_broker.enqueue(charge.message(1).copy(queue_name="gpu"))
    stub_broker.flush_all()
    clock.move(minutes=11)
    assert monitor.run_once().recovered == 1
    assert (waiting(stub_broker, "gpu"), waiting(stub_broker)) == (1, 0)


@pytest.mark.failure(30)
def test_the_message_of_a_transaction_longer_than_the_push_lease_is_pushed_once(
    stub_broker, stub_durable, sqlite_db, charge, monitor, clock, waiting, audits
):
    with sqlite_db.atomic():
        # Peewee calls back in this order: the monitor is first.
        sqlite_db.after_commit(lambda: clock.move(seconds=61))
        sqlite_db.after_commit(monitor.run_once)
        charge.send(1)
    assert waiting(stub_broker) == 1
    assert monitor.run_once().recovered == 0
    [audit] = audits(stub_durable)
    assert audit.enqueue_count == 2


@pytest.mark.failure(30)
def test_a_monitor_leaves_the_push_of_a_long_transaction_to_its_sender(
    stub_broker, stub_durable, sqlite_db, charge, monitor, clock, waiting, audits
):
    passes = []

    class Pass(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            passes.append(monitor.run_once().recovered)

    stub_broker.add_middleware(Pass())
    with sqlite_db.atomic():
        charge.send(1)
        clock.move(seconds=61)
    assert passes == [0]
    assert waiting(stub_broker) == 1
