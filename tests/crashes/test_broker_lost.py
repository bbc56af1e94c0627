"""The broker loses its messages, or goes away and comes back."""

from collections import Counter

import pytest

from .staging import LONG

SOURCE = """
    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, staged_broker, wait_at

    broker = staged_broker()


    @durable_actor
    def job(text, gate=None):
        if gate is not None:
            note(f"{text} waits")
            wait_at(gate)
        note(text)
"""

# A lease that a slow machine does not overrun.
LASTING = {"heartbeat_interval": 5_000, "job_timeout": 20_000}


@pytest.fixture
def in_the_middle(eventually):
    """``in_the_middle(stage)``: two jobs of 22 run, some are with the worker, the others wait."""

    def send(stage):
        sent = [stage.send("job", str(number), "end", **LASTING) for number in range(2)]
        eventually(lambda: len(stage.notes()) == 2)
        return sent + [stage.send("job", str(number)) for number in range(2, 22)]

    return send


@pytest.fixture
def all_run(eventually):
    """``all_run(stage, sent)``: each of *sent* runs, once; those that the broker lost are sent again."""

    def check(stage, sent):
        stage.open("end")
        audits = stage.finished(*sent)
        assert {audit.state for audit in audits} == {"completed"}
        ran = [note for note in stage.notes() if not note.endswith("waits")]
        assert Counter(ran) == Counter(str(number) for number in range(len(sent)))
        assert sum(audit.enqueue_count > 1 for audit in audits) > len(sent) / 2

    return check


@pytest.mark.failure(35)
@pytest.mark.parametrize("end", ["flushall", "restart"])
def test_all_jobs_run_although_redis_forgets_them_in_the_middle(
    make_stage, own_redis, sqlite_url, in_the_middle, all_run, end
):
    server = own_redis()
    stage = make_stage(SOURCE, server.url, sqlite_url)
    worker, monitor = stage.worker(), stage.monitor()
    sent = in_the_middle(stage)
    if end == "flushall":
        stage.broker.client.flushall()
    else:
        server.kill()
        server.start()
    assert stage.queued() == 0
    all_run(stage, sent)
    assert (worker.returncode, monitor.returncode) == (None, None)


@pytest.mark.failure(35)
def test_all_jobs_run_although_their_queue_is_deleted_from_rabbitmq(
    make_stage, rabbitmq_url, sqlite_url, in_the_middle, all_run
):
    # Without confirm_delivery, so that nobody says what becomes of a message.
    stage = make_stage(SOURCE, rabbitmq_url, sqlite_url)
    worker, monitor = stage.worker(), stage.monitor()
    sent = in_the_middle(stage)
    stage.broker.channel.queue_delete("default")
    all_run(stage, sent)
    assert (worker.returncode, monitor.returncode) == (None, None)


@pytest.mark.failure(3)
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_job_sent_while_the_broker_is_down_runs_when_it_is_back_and_no_backoff_is_used_up(
    make_stage, make_proxy, request, sqlite_url, kind, eventually
):
    proxy = make_proxy(request.getfixturevalue(f"{kind}_url"))
    stage = make_stage(SOURCE, proxy.url, sqlite_url, backoff=[LONG])
    proxy.down()
    message = stage.send("job", "text")
    monitor = stage.monitor(interval=0.05)
    moments = set()
    # It marks the audit and, when the push has failed, takes that back: twice.
    eventually(lambda: moments.add(stage.audit(message).due_at) or len(moments) > 4)

    proxy.up()
    stage.worker()
    [audit] = stage.finished(message)
    assert (audit.state, audit.enqueue_count, audit.start_count) == ("completed", 1, 1)
    assert stage.notes() == ["text"]
    assert monitor.returncode is None
