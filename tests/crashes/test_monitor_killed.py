"""Monitor processes that die, race, and are told to stop."""

import signal
from collections import Counter
from datetime import timedelta

import pytest

from dramatiq_durable import Monitor

from .staging import LONG

SOURCE = """
    import os

    import dramatiq

    from dramatiq_durable import durable_actor
    from tests.crashes.staging import die, first, note, staged_broker, wait_at

    broker = staged_broker()


    class Watch(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if message.args[0] == "die before the push" and first("death"):
                die()
            if message.args[0] == "wait":
                note(f"waiting {message.message_id}")
                wait_at("push")

        def after_enqueue(self, broker, message, delay, exception=None):
            if message.args[0] == "die after the push" and first("death"):
                die()
            if message.args[0] == "count":
                note(f"{message.message_id} {os.getpid()}")


    broker.add_middleware(Watch())


    @durable_actor
    def job(text):
        note(text)
"""

# Each monitor imports it, and then all start at once.
RACE = f"""{SOURCE}
    note("ready")
    wait_at("race")
"""

STALE_AT_ONCE = {"heartbeat_interval": None, "job_timeout": 1, "backoff": [0, LONG]}


@pytest.fixture
def database_url(request):
    return request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")


@pytest.fixture
def pass_of(clock):
    """``pass_of(stage)``: one pass of a monitor in this process, whose clock the test moves."""
    return lambda stage: Monitor(stage.broker).run_once()


@pytest.mark.failure(31)
def test_a_job_whose_monitor_died_before_the_push_waits_a_push_lease_and_not_the_next_backoff(
    make_stage, redis_url, database_url, pass_of, clock
):
    stage = make_stage(SOURCE, redis_url, database_url, backoff=[0, LONG])
    message = stage.send("job", "die before the push")
    stage.lose()
    assert stage.monitor().wait() == -signal.SIGKILL
    marked = stage.audit(message)
    assert (marked.state, marked.enqueue_count, marked.enqueued_at) == ("pending", 2, None)

    stage.worker()
    clock.move(seconds=30)
    assert pass_of(stage).recovered == 0
    clock.move(seconds=30)
    assert pass_of(stage).recovered == 1
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count) == ("completed", 1)
    assert stage.notes() == ["die before the push"]


@pytest.mark.failure(31)
def test_a_job_whose_monitor_died_after_the_push_runs_once(
    make_stage, redis_url, database_url, pass_of, clock
):
    stage = make_stage(SOURCE, redis_url, database_url, backoff=[0, LONG])
    message = stage.send("job", "die after the push")
    stage.lose()
    assert stage.monitor().wait() == -signal.SIGKILL
    clock.move(seconds=60)
    assert pass_of(stage).recovered == 1  # for nobody knows that it was pushed

    stage.worker()
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count) == ("completed", 1)
    assert stage.notes() == ["die after the push"]


@pytest.mark.failure(30)
@pytest.mark.parity(30)
@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
def test_three_monitors_send_each_lost_job_once(make_stage, redis_url, database_url, eventually):
    stage = make_stage(RACE, redis_url, database_url, **STALE_AT_ONCE)
    sent = [stage.send("job", "count").message_id for _ in range(90)]
    stage.broker.client.flushall()
    monitors = [stage.monitor("--batch-size", "20", interval=0.05) for _ in range(3)]
    eventually(lambda: len(stage.notes()) == 3)
    stage.open("race")

    eventually(lambda: all(audit.enqueue_count == 2 for audit in stage.audits()))
    for monitor in monitors:
        monitor.terminate()
    assert [monitor.wait() for monitor in monitors] == [0, 0, 0]

    pushes = [note.split() for note in stage.notes() if note != "ready"]
    assert Counter(message_id for message_id, _ in pushes) == Counter(sent)
    assert stage.queued() == len(sent)
    assert len({pid for _, pid in pushes}) > 1  # they did race


@pytest.mark.parity(29)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_monitor_that_waits_for_its_next_pass_ends_at_once(
    make_stage, redis_url, database_url, signum, eventually
):
    stage = make_stage(SOURCE, redis_url, database_url, **STALE_AT_ONCE)
    message = stage.send("job", "text")
    monitor = stage.monitor(interval="1h")
    sent_again = timedelta(seconds=LONG)
    eventually(lambda: stage.audit(message).due_at - stage.audit(message).created_at > sent_again)
    monitor.signal(signum)
    assert monitor.wait(timeout=5) == 0


@pytest.mark.parity(29)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_monitor_that_is_told_to_stop_finishes_its_pass(
    make_stage, redis_url, database_url, signum, eventually
):
    stage = make_stage(SOURCE, redis_url, database_url, **STALE_AT_ONCE)
    messages = [stage.send("job", "wait") for _ in range(3)]
    stage.lose()
    monitor = stage.monitor()
    eventually(stage.notes)
    monitor.signal(signum)
    stage.open("push")
    assert monitor.wait() == 0

    assert stage.notes() == [f"waiting {message.message_id}" for message in messages]
    assert stage.queued() == 3
    for message in messages:
        audit = stage.audit(message)
        assert audit.enqueue_count == 2
        # The push is confirmed: what counts from here is the backoff.
        assert audit.due_at > audit.created_at + timedelta(seconds=LONG)
