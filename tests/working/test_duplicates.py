"""A second copy of a message: its body is not run, and nothing else happens either."""

import logging

import dramatiq
import pytest

from dramatiq_durable import RequeueImmediately, durable_actor

pytestmark = [pytest.mark.failure(15), pytest.mark.parity(15)]

SECRET = "4111-1111-1111-1111"


@pytest.fixture
def stubborn(placed, gate, ran):
    """An actor that waits at the gate, and stores its result."""

    @durable_actor(store_results=True, on_success="tell", on_failure="tell")
    def charge(card):
        ran.append(card)
        gate.enter()
        return "receipt"

    @durable_actor
    def tell(*args):
        ran.append("told")

    return charge


@pytest.fixture
def second_copy(stub_broker, eventually):
    """``second_copy(message)``: enqueue it once more while it runs, and wait until a worker has seen to it."""

    def send(message):
        stub_broker.enqueue(message)
        eventually(lambda: stub_broker.queues["default"].unfinished_tasks == 1)

    return send


@pytest.fixture
def result_of(stub_broker):
    backend = stub_broker.get_results_backend
    return lambda message: message.get_result(backend=backend())


@pytest.mark.parity(3)
def test_a_copy_that_comes_after_the_completion_is_not_run(
    placed, stub_broker, ran, work, audit_of, audits, result_of
):
    @durable_actor(store_results=True, on_success="tell")
    def charge(order_id):
        ran.append(order_id)
        return f"receipt {len(ran)}"

    @durable_actor
    def tell(*args):
        ran.append("told")

    message = charge.send_with_options(args=(42,), pipe_target=tell.message().asdict())
    work()
    assert ran == [42, "told", "told"]
    before = dict(audit_of(message).__data__)

    stub_broker.enqueue(message)
    work()
    assert ran == [42, "told", "told"]
    assert dict(audit_of(message).__data__) == before
    assert len(audits(placed)) == 3
    assert result_of(message) == "receipt 1"
    assert stub_broker.dead_letters == []


def test_a_copy_that_comes_while_the_job_runs_is_not_run(
    stubborn, stub_broker, gate, ran, running_worker, second_copy, audit_of, result_of
):
    with running_worker(threads=2), gate:
        message = stubborn.send(SECRET)
        gate.wait_for_body()
        before = dict(audit_of(message).__data__)
        second_copy(message)
        after = dict(audit_of(message).__data__)
        assert after.pop("due_at") >= before.pop("due_at")
        assert after == before
        with pytest.raises(dramatiq.results.ResultMissing):
            result_of(message)
        assert ran == [SECRET]
    assert ran.count(SECRET) == 1
    assert result_of(message) == "receipt"
    assert stub_broker.dead_letters == []
    audit = audit_of(message)
    assert (audit.state, audit.start_count) == ("completed", 1)


@pytest.mark.parametrize("when", ["while it runs", "after its completion"])
def test_the_arguments_of_a_duplicate_are_not_logged(
    stubborn, stub_broker, gate, running_worker, second_copy, work, caplog, when
):
    caplog.set_level(logging.DEBUG)
    with running_worker(threads=2), gate:
        message = stubborn.send(SECRET)
        gate.wait_for_body()
        if when == "while it runs":
            caplog.clear()
            second_copy(message)
            logged = caplog.text
    if when == "after its completion":
        caplog.clear()
        stub_broker.enqueue(message)
        work()
        logged = caplog.text
    assert f"{message.message_id} was skipped" in logged
    assert SECRET not in logged


def test_a_duplicate_is_no_error(stubborn, gate, running_worker, second_copy, errors_logged):
    with running_worker(threads=2), gate:
        message = stubborn.send(SECRET)
        gate.wait_for_body()
        second_copy(message)
    assert errors_logged() == []


@pytest.fixture
def group(placed, ran):
    @durable_actor
    def part(name):
        ran.append(name)

    @durable_actor
    def tell():
        ran.append("all done")

    group = dramatiq.group([part.message("first"), part.message("second")])
    group.add_completion_callback(tell.message())
    return group


def test_a_duplicate_does_not_count_as_another_member_of_its_group(
    group, stub_broker, watcher, ran, work
):
    group.run()
    first, second = watcher.enqueued
    stub_broker.flush_all()
    for message in (first, first, first, second, second):
        stub_broker.enqueue(message)
        work()
    assert ran == ["first", "second", "all done"]


def test_the_callback_of_a_group_waits_for_the_member_that_was_not_delivered(
    group, stub_broker, watcher, ran, work
):
    group.run()
    first, _ = watcher.enqueued
    stub_broker.flush_all()
    for _ in range(3):
        stub_broker.enqueue(first)
        work()
    assert ran == ["first"]


# Copies of an older epoch


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    def charge():
        ran.append("charge")

    return charge


def test_copies_of_the_same_epoch_run_once(charge, ran, clock, monitor, work, audit_of):
    message = charge.send()
    clock.move(minutes=11)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["charge"]
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.enqueue_count) == ("completed", 1, 2)


def test_a_copy_of_an_older_epoch_does_not_run_beside_the_current_one(
    durable, stub_broker, ran, gate, monitor, clock, running_worker, second_copy, eventually,
    audit_of,
):  # fmt: skip
    @durable_actor
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            raise RequeueImmediately
        gate.enter()

    with running_worker(threads=2), gate:
        message = charge.send()
        eventually(lambda: audit_of(message).requeue_count)
        assert monitor.run_once().recovered == 1
        gate.wait_for_body()
        second_copy(message)
        assert ran == ["charge", "charge"]
        assert audit_of(message).state == "running"
    assert audit_of(message).state == "completed"
    assert ran == ["charge", "charge"]


def test_a_copy_of_an_older_epoch_does_not_bypass_the_backoff(
    durable, stub_broker, ran, work, recover, audit_of
):
    @durable_actor(max_retries=0)
    def charge():
        ran.append("charge")
        raise RuntimeError("no luck")

    message = charge.send()
    work()
    before = dict(audit_of(message).__data__)
    stub_broker.enqueue(message)
    work()
    assert ran == ["charge"]
    assert dict(audit_of(message).__data__) == before
    recover(minutes=1)
    assert ran == ["charge", "charge"]
