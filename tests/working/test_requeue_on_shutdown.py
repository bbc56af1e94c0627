"""``requeue_on_shutdown=True``: a job that its worker's shutdown interrupts is run again."""

import contextlib

import dramatiq
import pytest
from dramatiq.middleware import Shutdown

from dramatiq_durable import durable_actor

pytestmark = pytest.mark.failure(28)


@pytest.fixture(params=["function", "coroutine"])
def declare_long(request, ran, gate):
    """``declare_long(**options)``: an actor that runs until it is interrupted, the first time."""

    def make(**options):
        def function():
            ran.append("start")
            if len(ran) == 1:
                gate.enter()
            ran.append("end")

        async def coroutine():
            ran.append("start")
            if len(ran) == 1:
                await gate.enter_async()
            ran.append("end")

        fn = function if request.param == "function" else coroutine
        return durable_actor(actor_name="crawl", **options)(fn)

    return make


@pytest.fixture
def told(placed):
    told = []

    @durable_actor
    def tell(*args):
        told.append(args)

    return told


@pytest.fixture
def stopped_while_it_runs(gate, running_worker):
    """``stopped_while_it_runs(actor)``: its message; the worker has stopped in the middle of it."""

    def run(actor):
        with running_worker():
            message = actor.send()
            gate.wait_for_body()
        return message

    return run


def test_the_next_pass_runs_it_again(
    placed, declare_long, stopped_while_it_runs, ran, monitor, work, audit_of
):
    message = stopped_while_it_runs(declare_long(requeue_on_shutdown=True))
    assert ran == ["start"]
    audit = audit_of(message)
    assert (audit.state, audit.requeue_count, audit.failure_count) == ("pending", 1, 0)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["start", "start", "end"]
    assert audit_of(message).state == "completed"


def test_nothing_else_comes_of_the_interrupted_run(
    placed, declare_long, stopped_while_it_runs, told, stub_broker, watcher, errors_logged
):
    actor = declare_long(
        requeue_on_shutdown=True, store_results=True, on_failure="tell", on_success="tell"
    )
    message = stopped_while_it_runs(actor)
    with pytest.raises(dramatiq.results.ResultMissing):
        message.get_result(backend=stub_broker.get_results_backend())
    assert stub_broker.dead_letters == []
    assert [m.message_id for m in watcher.enqueued] == [message.message_id]
    assert told == []
    assert errors_logged() == []


def test_it_may_be_set_for_all_actors(
    stub_broker, sqlite_db, make_durable, gate, running_worker, audit_of
):
    make_durable(stub_broker, sqlite_db, requeue_on_shutdown=True)

    @durable_actor
    def crawl():
        gate.enter()

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    assert audit_of(message).requeue_count == 1


def test_it_may_be_set_for_one_message(durable, gate, running_worker, audit_of):
    @durable_actor
    def crawl():
        gate.enter()

    with running_worker():
        message = crawl.send_with_options(requeue_on_shutdown=True)
        gate.wait_for_body()
    audit = audit_of(message)
    assert (audit.state, audit.requeue_count) == ("pending", 1)


def test_without_it_the_worker_waits_for_the_job(
    durable, stub_broker, ran, gate, running_worker, audit_of
):
    class OpenTheGate(dramatiq.Middleware):
        def before_worker_shutdown(self, broker, worker):
            gate.open()

    # After Dramatiq's own, which has sent its notifications by then.
    stub_broker.add_middleware(OpenTheGate())

    @durable_actor
    def crawl():
        gate.enter()
        ran.append("end")

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    assert ran == ["end"]
    assert audit_of(message).state == "completed"


def test_with_dramatiqs_notify_shutdown_alone_the_interrupt_is_a_failure(
    durable, gate, running_worker, audit_of
):
    @durable_actor(notify_shutdown=True, max_retries=0)
    def crawl():
        gate.enter()

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    audit = audit_of(message)
    assert (audit.state, audit.requeue_count, audit.failure_count) == ("pending", 0, 1)
    assert "Shutdown" in audit.last_error


def test_a_body_that_cleans_up_after_the_interrupt_is_requeued(
    durable, ran, gate, running_worker, audit_of
):
    @durable_actor(requeue_on_shutdown=True)
    def crawl():
        try:
            gate.enter()
        except Shutdown as shutdown:
            ran.append("cleaned up")
            raise RuntimeError("interrupted") from shutdown

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    assert ran == ["cleaned up"]
    assert audit_of(message).requeue_count == 1


def test_a_body_that_finishes_in_spite_of_the_interrupt_is_completed(
    durable, ran, gate, running_worker, audit_of
):
    @durable_actor(requeue_on_shutdown=True)
    def crawl():
        try:
            gate.enter()
        except Shutdown:
            ran.append("finished")

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    assert ran == ["finished"]
    assert audit_of(message).state == "completed"


def test_a_job_that_fails_while_the_worker_stops_has_failed(
    durable, gate, running_worker, audit_of
):
    @durable_actor(requeue_on_shutdown=True, max_retries=0)
    def crawl():
        with contextlib.suppress(Shutdown):
            gate.enter()
        raise RuntimeError("no luck")

    with running_worker():
        message = crawl.send()
        gate.wait_for_body()
    audit = audit_of(message)
    assert (audit.requeue_count, audit.failure_count) == (0, 1)
