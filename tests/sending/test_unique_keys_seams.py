"""A ``unique_key`` in pipelines and groups, beside other middleware, and without a broker."""

import dramatiq
import pytest
from dramatiq.middleware import MiddlewareError

from dramatiq_durable import DurableMiddleware, durable_actor
from dramatiq_durable.errors import OptionError


@pytest.fixture
def once(charge):
    """``once(order_id)``: send it with the test's key."""
    return lambda order_id: charge.send_with_options(args=(order_id,), unique_key="k")


@pytest.mark.parametrize("position", ["first", "later"])
def test_a_step_of_a_pipeline_that_is_not_sent_is_its_end(
    stub_broker, stub_durable, ran, work, audits, position
):
    @durable_actor
    def begin():
        ran.append("begin")

    @durable_actor
    def end(result):
        ran.append("end")

    @durable_actor(actor_name="step")
    def step(*args):
        ran.append("step")

    holder = step.send_with_options(unique_key="k")
    stub_broker.flush_all()
    unique = step.message_with_options(unique_key="k")
    steps = [unique, end.message()]
    dramatiq.pipeline(steps if position == "first" else [begin.message(), *steps]).run()
    work()
    assert ran == ([] if position == "first" else ["begin"])
    others = [audit for audit in audits(stub_durable) if audit.message_id != holder.message_id]
    assert [audit.state for audit in others] == ["completed"] * len(ran)


def test_a_step_of_a_pipeline_with_a_key_is_sent_while_nobody_has_that(
    stub_durable, charge, once, ran, work
):
    steps = [charge.message(1), charge.message_with_options(unique_key="k")]
    dramatiq.pipeline(steps).run()
    work()
    assert ran == [1, None]


def test_in_a_group_it_is_sent_by_itself(
    stub_broker, stub_durable, charge, once, ran, waiting, work
):
    once("holds")
    members = [
        charge.message(1),
        *(charge.message_with_options(args=(2,), unique_key=k) for k in "kl"),
    ]
    dramatiq.group(members).run()
    assert waiting(stub_broker) == 3
    work()
    assert sorted(map(str, ran)) == ["1", "2", "holds"]


def test_send_many_refuses_it(stub_durable, charge, audits):
    messages = [charge.message(1), charge.message_with_options(args=(2,), unique_key="k")]
    with pytest.raises(OptionError, match="by itself"):
        stub_durable.send_many(messages)
    assert audits(stub_durable) == []


@pytest.mark.failure(3)
@pytest.mark.parametrize("use_of_the_queue", ["first", "later"])
def test_what_the_broker_did_not_take_holds_it(
    far_broker, sqlite_db, make_durable, charge, once, ran, work, monitor, audits, use_of_the_queue
):
    durable = make_durable(far_broker, sqlite_db)
    if use_of_the_queue == "later":
        charge.send("before")
        work()
    far_broker.proxy.down()
    message = once(1)
    assert once(2).message_id == message.message_id
    far_broker.proxy.up()
    assert once(3).message_id == message.message_id
    assert monitor.run_once().recovered == 1
    work()
    assert ran[-1] == 1
    assert len(audits(durable)) == len(ran)


class Refuse(dramatiq.Middleware):
    def before_enqueue(self, broker, message, delay):
        raise MiddlewareError("not now")


def test_what_another_middleware_refuses_does_not_hold_it(
    stub_broker, stub_durable, once, ran, work
):
    refuse = Refuse()
    stub_broker.add_middleware(refuse)
    with pytest.raises(MiddlewareError, match="not now"):
        once(1)
    stub_broker.middleware.remove(refuse)
    stub_broker.add_middleware(dramatiq.Middleware())
    once(2)
    work()
    assert ran == [2]


@pytest.mark.failure(4)
def test_without_an_audit_where_audit_failed_lets_it_go(
    stub_broker, sqlite_db, make_durable, once, waiting
):
    class Lenient(DurableMiddleware):
        def audit_failed(self, broker, message, error):
            failed.append(message.message_id)

    failed = []
    durable = make_durable(stub_broker, sqlite_db, Lenient)
    sqlite_db.execute_sql("DROP TABLE durable_audits")
    sent = [once(number).message_id for number in range(2)]
    assert failed == sent
    assert len(set(sent)) == waiting(stub_broker) == 2
    durable.store.connections.close()
