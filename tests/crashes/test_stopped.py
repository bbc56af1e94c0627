"""Workers that stand still, that are told to stop, and jobs that never end."""

import signal
from datetime import timedelta

import pytest

from dramatiq_durable import Monitor

from .staging import LONG

SOURCE = """
    import asyncio

    from dramatiq.middleware.asyncio import AsyncIO
    from dramatiq.middleware.time_limit import TimeLimitExceeded
    from dramatiq_durable import LeaseLost, durable_actor
    from tests.crashes.staging import is_open, note, number, staged_broker, wait_at

    broker = staged_broker()
    broker.add_middleware(AsyncIO())


    @durable_actor
    def job():
        start = number("start")
        note(f"start {start}")
        try:
            wait_at(f"end {start}")
        except LeaseLost:
            note(f"lost {start}")
            raise
        note(f"end {start}")


    @durable_actor(requeue_on_shutdown=True)
    def long():
        start = number("long")
        note(f"long {start}")
        wait_at(f"long {start}")


    @durable_actor(requeue_on_shutdown=True)
    async def long_coroutine():
        start = number("coroutine")
        note(f"coroutine {start}")
        while not is_open(f"coroutine {start}"):
            await asyncio.sleep(0.01)


    @durable_actor(time_limit=2_000)
    def hangs_once():
        start = number("start")
        note(f"start {start}")
        while start == 1:
            try:
                wait_at("never")
            except TimeLimitExceeded:
                note("time limit")
"""


@pytest.fixture
def recover(eventually):
    """``recover(stage)``: let a monitor send the one job whose lease runs out, once."""

    def recover(stage):
        monitor = Monitor(stage.broker)
        eventually(lambda: monitor.run_once().recovered == 1, message="the lease never ends")

    return recover


# A process that stands still in a statement on SQLite holds up everybody: these use PostgreSQL.


@pytest.mark.failure(16)
def test_a_job_whose_worker_is_stopped_starts_elsewhere_and_its_first_actor_gets_lease_lost(
    make_stage, redis_url, postgres_url, recover, eventually
):
    stage = make_stage(SOURCE, redis_url, postgres_url)
    stopped = stage.worker()
    message = stage.send("job")
    stage.noted("start 1")
    stopped.signal(signal.SIGSTOP)
    stopped_at = stage.audit(message)
    lease = timedelta(microseconds=stopped_at.lease)

    stage.worker()
    recover(stage)
    assert stage.started(message, 2).started_at >= stopped_at.due_at
    # Renewed by the second, its lease ends one later than now.
    eventually(lambda: stage.audit(message).due_at >= stopped_at.due_at + 3 * lease)
    stopped.signal(signal.SIGCONT)
    stage.noted("start 1", "start 2", "lost 1")

    stage.open("end 2")
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count, audit.failure_count) == ("completed", 2, 0)
    stage.noted("start 1", "start 2", "lost 1", "end 2")


@pytest.mark.failure(16)
def test_a_completion_that_comes_after_the_lease_is_refused(
    make_stage, redis_url, postgres_url, recover
):
    # Without heartbeats nothing tells the first worker before it is done.
    stage = make_stage(SOURCE, redis_url, postgres_url, heartbeat_interval=None)
    stopped = stage.worker()
    message = stage.send("job")
    stage.noted("start 1")
    stopped.signal(signal.SIGSTOP)

    stage.worker()
    recover(stage)
    second = stage.started(message, 2)
    stage.open("end 1")
    stopped.signal(signal.SIGCONT)
    stopped.wait_for("its audit was no longer ours")
    stage.noted("start 1", "start 2", "end 1")
    audit = stage.audit(message)
    assert (audit.state, audit.epoch, audit.claim_id) == ("running", 2, second.claim_id)

    stage.open("end 2")
    [audit] = stage.finished(message)
    assert (audit.state, audit.epoch, audit.claim_id) == ("completed", 2, second.claim_id)


@pytest.mark.failure(28)
def test_a_long_job_is_requeued_when_its_worker_is_told_to_stop(make_stage, broker_url, sqlite_url):
    stage = make_stage(SOURCE, broker_url, sqlite_url, backoff=[LONG])
    worker = stage.worker()
    messages = [stage.send("long"), stage.send("long_coroutine")]
    stage.noted("long 1", "coroutine 1")
    worker.terminate()
    assert worker.wait() == 0
    assert "ERROR" not in worker.output()
    assert (stage.queued(), stage.queued("default.DQ"), stage.dead_letters()) == (0, 0, 0)
    for message in messages:
        audit = stage.audit(message)
        assert (audit.state, audit.requeue_count) == ("pending", 1)
        assert (audit.enqueue_count, audit.crash_count, audit.failure_count) == (0, 0, 0)

    stage.open("long 2")
    stage.open("coroutine 2")
    stage.monitor()
    stage.worker()
    audits = stage.finished(*messages)
    assert [(audit.state, audit.start_count) for audit in audits] == [("completed", 2)] * 2
    assert {audit.enqueue_count for audit in audits} == {1}


@pytest.mark.failure(18)
def test_a_job_that_hangs_is_started_again_after_its_time_limit_and_a_lease(
    make_stage, redis_url, sqlite_url
):
    stage = make_stage(SOURCE, redis_url, sqlite_url, heartbeat_interval=400)
    stage.monitor()
    stage.worker()
    message = stage.send("hangs_once")
    first = stage.started(message, 1)
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 2, 1)
    stage.noted("start 1", "time limit", "start 2")
    # Until then its lease was renewed.
    assert audit.started_at - first.started_at >= timedelta(seconds=2)
