"""An audit is taken away from a running job: LeaseLost in that job alone, and nothing comes of it."""

import time
from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import LeaseLost, RequeueImmediately, durable_actor
from dramatiq_durable.middleware import find_middleware

BEAT = 20  # milliseconds


@pytest.fixture
def cancel(stub_broker):
    """``cancel(message)``: what the command does; how many it has cancelled."""
    return lambda message: sum(find_middleware(stub_broker).store.cancel([message.message_id]))


@pytest.fixture(params=["function", "coroutine"])
def declare_long(request, ran, gate):
    """``declare_long(**options)``: an actor that notes how its stay at the gate ended."""

    def make(**options):
        def function(*args):
            try:
                gate.enter()
            except BaseException as error:
                ran.append(type(error).__name__)
                raise
            ran.append("end")
            return "receipt"

        async def coroutine(*args):
            try:
                await gate.enter_async()
            except BaseException as error:
                ran.append(type(error).__name__)
                raise
            ran.append("end")
            return "receipt"

        fn = function if request.param == "function" else coroutine
        return durable_actor(actor_name="charge", heartbeat_interval=BEAT, **options)(fn)

    return make


INTERRUPTED = {"LeaseLost", "CancelledError"}  # the second in a coroutine


# Cancelled while it is queued, while it runs


@pytest.mark.failure(29)
def test_a_job_cancelled_while_queued_never_starts(
    placed, stub_broker, cancel, ran, work, recover, audit_of
):
    @durable_actor(store_results=True)
    def charge():
        ran.append("charge")

    message = charge.send()
    assert cancel(message) == 1
    work()
    recover(hours=1)
    assert ran == []
    audit = audit_of(message)
    assert (audit.state, audit.start_count) == ("cancelled", 0)
    assert stub_broker.dead_letters == []
    with pytest.raises(dramatiq.results.ResultMissing):
        message.get_result(backend=stub_broker.get_results_backend())


@pytest.mark.failure(29)
def test_a_job_cancelled_between_its_retries_never_starts_again(
    durable, cancel, ran, running_worker, eventually, work, audit_of
):
    @durable_actor(min_backoff=300, max_retries=3)
    def charge():
        ran.append("charge")
        raise RuntimeError("no luck")

    message = charge.send()
    with running_worker():
        eventually(lambda: audit_of(message).failure_count)
        assert cancel(message) == 1
        eventually(lambda: not durable.broker.queues["default.DQ"].unfinished_tasks)
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "cancelled"


@pytest.mark.failure(29)
@pytest.mark.failure(17)
def test_a_job_cancelled_while_it_runs_is_interrupted(
    placed, declare_long, cancel, gate, ran, running_worker, eventually, audit_of
):
    with running_worker(), gate:
        message = declare_long().send()
        gate.wait_for_body()
        assert cancel(message) == 1
        eventually(lambda: ran)
    assert set(ran) <= INTERRUPTED
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == ("cancelled", 0)


@pytest.mark.failure("28b")
def test_nothing_else_comes_of_the_interrupted_run(
    placed, stub_broker, declare_long, cancel, gate, ran, watcher, running_worker, eventually, work,
    errors_logged,
):  # fmt: skip
    @durable_actor
    def tell(*args):
        ran.append("told")

    charge = declare_long(
        store_results=True,
        max_retries=3,
        min_backoff=1,
        on_failure="tell",
        on_success="tell",
        on_retry_exhausted="tell",
    )
    pipeline = charge.message() | tell.message()
    with running_worker(), gate:
        message = pipeline.run().messages[0]
        gate.wait_for_body()
        assert cancel(message) == 1
        eventually(lambda: ran)
    work()
    assert set(ran) <= INTERRUPTED
    assert [m.message_id for m in watcher.enqueued] == [message.message_id]
    assert stub_broker.dead_letters == []
    with pytest.raises(dramatiq.results.ResultMissing):
        message.get_result(backend=stub_broker.get_results_backend())
    assert errors_logged() == []


@pytest.mark.failure(29)
@pytest.mark.parametrize("end", ["returns", "raises", "asks to be run again"])
def test_a_cancelled_job_stays_cancelled_however_its_body_ends(
    placed, stub_broker, cancel, ran, recover, work, audit_of, end
):
    """Without heartbeats nothing interrupts it."""

    @durable_actor(heartbeat_interval=None, max_retries=3, min_backoff=1)
    def charge():
        ran.append("charge")
        assert cancel(message) == 1
        if end == "raises":
            raise RuntimeError("no luck")
        if end == "asks to be run again":
            raise RequeueImmediately

    message = charge.message()
    stub_broker.enqueue(message)
    work()
    recover(hours=1)
    assert ran == ["charge"]
    assert audit_of(message).state == "cancelled"


@pytest.mark.failure(17)
def test_of_two_jobs_the_other_goes_on(
    placed, stub_broker, declare_long, cancel, gate, ran, running_worker, eventually, audit_of
):
    charge = declare_long()
    with running_worker(threads=2), gate:
        lost, other = charge.send(), charge.send()
        gate.wait_for_body()
        gate.wait_for_body()
        assert cancel(lost) == 1
        eventually(lambda: ran)
        due_at = audit_of(other).due_at
        eventually(lambda: audit_of(other).due_at > due_at)
        assert len(ran) == 1
    assert ran[0] in INTERRUPTED
    assert ran[1:] == ["end"]
    assert audit_of(lost).state == "cancelled"
    assert audit_of(other).state == "completed"


def test_the_thread_of_an_interrupted_job_runs_the_next_ones(
    durable, declare_long, cancel, gate, ran, running_worker, eventually, audit_of
):
    @durable_actor
    def ship():
        ran.append("ship")

    with running_worker(threads=1), gate:
        message = declare_long().send()
        gate.wait_for_body()
        assert cancel(message) == 1
        shipped = [ship.send() for _ in range(20)]
        eventually(lambda: ran.count("ship") == 20)
    assert {audit_of(message).state for message in shipped} == {"completed"}


@pytest.mark.failure("28b")
@pytest.mark.parametrize("placed", ["ours last"], indirect=True)
def test_a_body_that_catches_it_changes_nothing(
    placed, stub_broker, cancel, ran, running_worker, eventually, audit_of, errors_logged
):
    @durable_actor
    def tell(*args):
        ran.append("told")

    @durable_actor(
        heartbeat_interval=BEAT,
        store_results=True,
        max_retries=3,
        min_backoff=1,
        on_success="tell",
        on_failure="tell",
    )
    def charge(then):
        try:
            while True:
                time.sleep(0.001)
        except LeaseLost as error:
            ran.append(then)
            if then == "fails":
                raise RuntimeError("the payment was interrupted") from error
        return "receipt"

    with running_worker(threads=2):
        messages = [charge.send(then) for then in ("fails", "returns")]
        eventually(lambda: {audit_of(message).state for message in messages} == {"running"})
        assert [cancel(message) for message in messages] == [1, 1]
        eventually(lambda: len(ran) == 2)
    assert sorted(ran) == ["fails", "returns"]
    for message in messages:
        audit = audit_of(message)
        assert (audit.state, audit.failure_count) == ("cancelled", 0)
        with pytest.raises(dramatiq.results.ResultMissing):
            message.get_result(backend=stub_broker.get_results_backend())
    assert stub_broker.dead_letters == []
    assert errors_logged() == []


@pytest.mark.failure(29)
def test_a_job_is_either_cancelled_or_completed(
    durable, cancel, ran, running_worker, eventually, audit_of
):
    @durable_actor(heartbeat_interval=None)
    def charge(n):
        ran.append(n)

    messages = [charge.send(n) for n in range(200)]
    with running_worker(threads=2):
        eventually(lambda: audit_of(messages[0]).state == "completed")
        # From the last one on, to meet the workers half-way.
        cancelled = [cancel(message) for message in reversed(messages)][::-1]
        eventually(lambda: not durable.broker.queues["default"].unfinished_tasks)
    for n, message in enumerate(messages):
        audit = audit_of(message)
        assert audit.state == ("cancelled" if cancelled[n] else "completed")
        assert ran.count(n) == audit.start_count
    assert 0 < sum(cancelled) < 200


@pytest.mark.failure(16)
def test_what_is_lost_after_the_body_has_returned_and_claimed_by_nobody_is_completed(
    stub_broker, sqlite_db, make_durable, clock, caplog, work, eventually, audit_of
):
    runs = []

    class Slow(dramatiq.Middleware):
        """Stands still after the body until the lease is over, a monitor has marked the job, and the keeper knows."""

        def after_process_message(self, broker, message, *, result=None, exception=None):
            store = durable.store
            clock.move(hours=1)
            [stale] = store.stale(10)
            assert store.mark(stale, timedelta(hours=1))
            eventually(lambda: "is lost" in caplog.text)

    stub_broker.add_middleware(Slow())
    durable = make_durable(stub_broker, sqlite_db, heartbeat_interval=50, job_timeout=60_000)

    @durable_actor
    def charge():
        runs.append(1)

    message = charge.send()
    work()
    assert runs == [1]
    assert audit_of(message).state == "completed"
