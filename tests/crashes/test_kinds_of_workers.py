"""Workers under gevent, and actors that are coroutines: leases are renewed, lost and given back as anywhere."""

import sys
from pathlib import Path

import pytest

from dramatiq_durable import Monitor
from tests.support.app import READY

from .staging import LONG

pytestmark = pytest.mark.failure(47)

GREENLETS = """
    from dramatiq_durable import RequeueImmediately, durable_actor
    from tests.crashes.staging import first, note, staged_broker, wait_at

    broker = staged_broker()


    @durable_actor(max_retries=0)
    def job(text):
        note(f"{text} begins")
        try:
            wait_at(text)
        except BaseException:
            note(f"{text} is interrupted")
            raise
        note(f"{text} ends")


    @durable_actor(max_retries=0)
    def not_yet():
        note("not yet")
        if first("run"):
            raise RequeueImmediately
"""

COROUTINES = """
    import asyncio

    from dramatiq.middleware.asyncio import AsyncIO
    from dramatiq_durable import RequeueImmediately, durable_actor
    from tests.crashes.staging import first, is_open, note, staged_broker

    broker = staged_broker()
    broker.add_middleware(AsyncIO())


    @durable_actor(max_retries=0)
    async def job(text):
        # An interrupt that comes before Dramatiq's thread waits for the coroutine does not cancel it.
        await asyncio.sleep(0.1)
        note(f"{text} begins")
        try:
            while not is_open(text):
                await asyncio.sleep(0.01)
        except BaseException:
            note(f"{text} is interrupted")
            raise
        note(f"{text} ends")


    @durable_actor(max_retries=0)
    async def not_yet():
        note("not yet")
        if first("run"):
            raise RequeueImmediately
"""

# The command of Dramatiq's that patches Python before it imports anything else.
GEVENT = f"""
    import runpy
    import sys

    sys.argv = ["dramatiq-gevent", "app:broker", "-p", "1", "-t", "8"]
    runpy.run_path({str(Path(sys.executable).with_name("dramatiq-gevent"))!r}, run_name="__main__")
"""

KINDS = ["gevent-sqlite", "gevent-postgres", "gevent-mariadb", "coroutines-postgres"]


@pytest.fixture(params=KINDS)
def stage(request, make_stage, redis_url):
    """A worker, ready."""
    kind, _, database = request.param.partition("-")
    url = request.getfixturevalue(f"{database}_url")
    source = GREENLETS if kind == "gevent" else COROUTINES
    stage = make_stage(source, redis_url, url, backoff=[LONG])
    if kind == "gevent":
        stage.process = stage.app.process(GEVENT)
        stage.process.wait_for(READY)
    else:
        stage.process = stage.worker()
    return stage


def test_leases_are_renewed_lost_and_given_back(stage, eventually):
    # With a lease that a slow machine does not overrun.
    kept = stage.send("job", "kept", heartbeat_interval=1_000, job_timeout=10_000)
    lost = stage.send("job", "lost")
    stage.noted("kept begins", "lost begins")
    assert list(stage.durable.store.cancel([lost.message_id])) == [1]
    stage.noted("kept begins", "lost begins", "lost is interrupted")

    started = stage.audit(kept)
    eventually(lambda: stage.audit(kept).due_at > started.due_at)
    assert Monitor(stage.broker).run_once().recovered == 0

    requeued = stage.send("not_yet")
    eventually(lambda: stage.audit(requeued).requeue_count == 1)
    assert Monitor(stage.broker).run_once().recovered == 1

    stage.open("kept")
    audits = stage.finished(kept, lost, requeued)
    assert [audit.state for audit in audits] == ["completed", "cancelled", "completed"]
    assert [audit.start_count for audit in audits] == [1, 1, 2]
    assert {(audit.failure_count, audit.crash_count) for audit in audits} == {(0, 0)}
    ends = ["lost is interrupted", "kept ends", "not yet", "not yet"]
    stage.noted("kept begins", "lost begins", *ends)
    stage.process.terminate()
    assert stage.process.wait() == 0
    assert stage.dead_letters() == 0
    assert "ERROR" not in stage.process.output()
