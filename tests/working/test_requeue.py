"""``raise RequeueImmediately``: not done and not failed; the monitor's next pass runs it again."""

import logging
from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import RequeueImmediately, durable_actor

pytestmark = [pytest.mark.failure(27), pytest.mark.parity(23)]


@pytest.fixture
def not_yet(ran):
    """A body that asks to be run again, the first time."""

    def charge(*args):
        ran.append(args)
        if len(ran) == 1:
            raise RequeueImmediately
        return f"run {len(ran)}"

    return charge


@pytest.fixture
def told(placed):
    """What the actor "tell", for follow-ups and callbacks, was called with last."""
    told = []

    @durable_actor
    def tell(*args):
        told.append(args[-1])

    return told


@pytest.fixture
def next_pass(monitor, work):
    def run():
        done = monitor.run_once()
        work()
        return done.recovered

    return run


@pytest.fixture
def result_of(stub_broker):
    return lambda message: message.get_result(backend=stub_broker.get_results_backend())


def test_the_next_pass_runs_it_again(placed, declare, not_yet, ran, work, next_pass, audit_of):
    message = declare(not_yet, store_results=True).send(42)
    work()
    assert ran == [(42,)]
    assert audit_of(message).state == "pending"
    assert next_pass() == 1
    assert ran == [(42,), (42,)]
    assert audit_of(message).state == "completed"
    assert next_pass() == 0


def test_it_is_neither_a_failure_nor_a_send(placed, not_yet, work, monitor, audit_of, watcher):
    message = durable_actor(max_retries=3, min_backoff=1)(not_yet).send(42)
    sent = audit_of(message)
    work()
    audit = audit_of(message)
    assert (audit.requeue_count, audit.failure_count, audit.crash_count) == (1, 0, 0)
    assert audit.last_error is None
    assert len(watcher.enqueued) == 1
    monitor.run_once()
    audit = audit_of(message)
    assert audit.enqueue_count == sent.enqueue_count == 1
    assert audit.due_at - audit.enqueued_at == sent.due_at - sent.enqueued_at


def test_it_leaves_no_dead_letter_no_error_and_no_arguments_in_the_log(
    placed, declare, not_yet, stub_broker, work, next_pass, caplog, errors_logged
):
    declare(not_yet, store_results=True).send("4111-1111-1111-1111")
    caplog.set_level(logging.INFO)
    work()
    next_pass()
    assert stub_broker.dead_letters == []
    assert errors_logged() == []
    assert "4111-1111-1111-1111" not in caplog.text


@pytest.mark.parametrize("callback", ["on_success", "on_failure", "on_retry_exhausted"])
def test_no_callback_is_called_before_it_is_done(placed, not_yet, told, work, next_pass, callback):
    durable_actor(store_results=True, max_retries=0, **{callback: "tell"})(not_yet).send(42)
    work()
    assert told == []
    next_pass()
    assert told == (["run 2"] if callback == "on_success" else [])


def test_the_next_step_of_its_pipeline_waits_until_it_is_done(
    placed, stub_broker, not_yet, told, work, next_pass
):
    (durable_actor(not_yet).message(42) | stub_broker.get_actor("tell").message()).run()
    work()
    assert told == []
    next_pass()
    assert told == ["run 2"]


def test_its_result_is_not_stored_before_it_is_done(placed, not_yet, work, next_pass, result_of):
    message = durable_actor(store_results=True)(not_yet).send(42)
    work()
    with pytest.raises(dramatiq.results.ResultMissing):
        result_of(message)
    next_pass()
    assert result_of(message) == "run 2"


def test_a_group_is_not_complete_before_it_is_done(
    placed, stub_broker, not_yet, ran, told, work, next_pass
):
    charge = durable_actor(not_yet)
    group = dramatiq.group([charge.message(1), charge.message(2)])
    group.add_completion_callback(stub_broker.get_actor("tell").message("all done"))
    group.run()
    work()
    assert len(ran) == 2
    assert told == []
    next_pass()
    assert told == ["all done"]


def test_the_exception_may_say_why(durable, ran, work, next_pass, audit_of):
    def body():
        ran.append("charge")
        if len(ran) == 1:
            raise RequeueImmediately("the warehouse is closed")

    message = durable_actor(body).send()
    work()
    next_pass()
    assert ran == ["charge", "charge"]
    assert audit_of(message).state == "completed"


def test_an_actor_whose_every_error_is_final_may_ask_for_it_too(
    durable, not_yet, ran, work, next_pass
):
    durable_actor(throws=Exception)(not_yet).send()
    work()
    next_pass()
    assert len(ran) == 2


def test_a_job_may_be_requeued_for_longer_than_its_expiration(
    stub_broker, sqlite_db, make_durable, ran, work, clock, next_pass, audit_of
):
    make_durable(stub_broker, sqlite_db, expiration=timedelta(days=2))

    @durable_actor
    def charge():
        ran.append("charge")
        raise RequeueImmediately

    message = charge.send()
    work()
    for _ in range(5):
        clock.move(days=1)
        assert next_pass() == 1
    assert len(ran) == 6
    audit = audit_of(message)
    assert (audit.state, audit.requeue_count) == ("pending", 6)


def test_a_requeued_job_is_as_old_as_its_requeue(durable, ran, work, clock, next_pass, audit_of):
    """AgeLimit goes by the machine's clock, which no test moves: milliseconds stand for the hour."""

    @durable_actor(max_age=3_600_000)
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            raise RequeueImmediately

    message = charge.send()
    clock.move(hours=1)
    work()
    charge.options["max_age"] = 1
    next_pass()
    assert ran == ["charge", "charge"]
    assert audit_of(message).state == "completed"


def test_a_job_that_was_called_by_another_is_not_the_one_that_is_requeued(
    durable, ran, work, next_pass, audits
):
    @durable_actor
    def inner():
        ran.append("inner")
        raise RequeueImmediately

    @durable_actor
    def outer():
        ran.append("outer")
        if len(ran) < 3:
            inner()

    outer.send()
    work()
    [audit] = audits(durable)
    assert (audit.actor_name, audit.requeue_count) == ("outer", 1)
    next_pass()
    assert ran == ["outer", "inner", "outer"]
