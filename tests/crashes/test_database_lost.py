"""The database restarts, or cannot be reached, under workers and monitors."""

from collections import Counter
from datetime import timedelta

import pytest

from dramatiq_durable import Monitor

SOURCE = """
    import dramatiq

    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.crashes.staging import note, number, staged_broker, wait_at


    class Watch(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            note(message.message_id, "copies")


    broker = staged_broker()
    broker.add_middleware(Watch(), before=DurableMiddleware)


    @durable_actor
    def job(text, gate=None):
        if gate is not None:
            note(f"{text} waits")
            wait_at(gate)
        note(text)


    @durable_actor(min_backoff=100, max_backoff=100)
    def fails_once():
        attempt = number("attempt")
        note(f"attempt {attempt}")
        if attempt == 1:
            wait_at("failure")
            raise ValueError
"""

NONE, LEASE = timedelta(0), timedelta(seconds=0.8)


@pytest.fixture
def far_database(make_stage, make_proxy, redis_url, postgres_url):
    """``far_database(**options)``: a stage whose processes reach PostgreSQL through ``.proxy``."""

    def make(**options):
        proxy = make_proxy(postgres_url)
        environment = {"DATABASE_URL": proxy.url}
        stage = make_stage(SOURCE, redis_url, postgres_url, environment=environment, **options)
        stage.proxy = proxy
        return stage

    return make


@pytest.mark.failure(21)
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_worker_and_monitor_carry_on_when_the_database_was_killed_and_started(
    make_stage, request, redis_url, kind
):
    server = request.getfixturevalue(f"own_{kind}")()
    with server.fresh() as url:
        stage = make_stage(SOURCE, redis_url, url)
        worker, monitor = stage.worker(), stage.monitor()
        sent = [stage.send("job", "before")]
        stage.finished(*sent)
        # Its lease outlasts the restart, so that it does not run twice.
        lasting = {"heartbeat_interval": 2_000, "job_timeout": 10_000}
        sent.append(stage.send("job", "through", "end", **lasting))
        stage.noted("before", "through waits")

        server.kill()
        monitor.wait_for("[WARNING]")
        server.start()
        sent.append(stage.send("job", "lost"))
        stage.lose()
        sent.append(stage.send("job", "after"))
        stage.open("end")
        assert {audit.state for audit in stage.finished(*sent)} == {"completed"}
        stage.noted("before", "through waits", "through", "lost", "after")
        assert (worker.returncode, monitor.returncode) == (None, None)


@pytest.mark.failure(19)
def test_workers_wait_for_a_database_that_is_down_and_do_not_burn_the_queue(
    make_stage, redis_url, own_postgres, eventually
):
    server = own_postgres()
    with server.fresh() as url:
        stage = make_stage(SOURCE, redis_url, url, heartbeat_interval=5_000, job_timeout=60_000)
        sent = [stage.send("job", str(number), max_retries=0) for number in range(300)]
        worker, monitor = stage.worker(), stage.monitor()
        eventually(lambda: len(stage.notes()) > 50)
        server.stop()
        eventually(lambda: worker.output().count(" waits: ") == 2)
        eventually(lambda: monitor.output().count("The monitor waits") >= 2)
        assert stage.queued() > 100
        assert len(stage.notes("copies")) <= len(stage.notes()) + 2

        server.start()
        audits = stage.finished(*sent)
        assert Counter(stage.notes()) == Counter(str(number) for number in range(300))
        counts = {(audit.state, audit.start_count, audit.failure_count) for audit in audits}
        assert counts == {("completed", 1, 0)}
        assert len(stage.notes("copies")) == 300
        # Nobody sent them again, and nobody has to.
        assert {audit.enqueue_count for audit in audits} == {1}
        assert stage.dead_letters() == 0
        assert (worker.returncode, monitor.returncode) == (None, None)


@pytest.mark.failure(20)
def test_a_job_that_ends_while_the_database_is_down_is_completed_when_it_is_back(
    far_database, eventually
):
    stage = far_database()
    worker = stage.worker()
    message = stage.send("job", "text", "end")
    stage.noted("text waits")
    stage.proxy.down()
    stage.open("end")
    eventually(lambda: stage.queued() == 0, message="the ack waits for the completion")
    worker.wait_for("[dramatiq_durable.keeper] [WARNING]")
    assert stage.audit(message).state == "running"

    stage.proxy.up()
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 1, 0)
    assert stage.notes() == ["text waits", "text"]


@pytest.mark.failure("14b")
@pytest.mark.parametrize("outage", ["short", "longer than the lease"])
def test_a_job_that_fails_while_the_database_is_down_is_retried_when_it_is_back(
    far_database, outage, eventually
):
    stage = far_database()
    stage.worker()
    message = stage.send("fails_once")
    stage.noted("attempt 1")
    stage.proxy.down()
    stage.open("failure")
    eventually(lambda: len(stage.notes("copies")) == 2, message="Dramatiq's copy")
    if outage != "short":
        eventually(lambda: (stage.durable.store.oldest_stale() or NONE) > LEASE)
    assert stage.notes() == ["attempt 1"]

    stage.proxy.up()
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count) == ("completed", 2)
    assert stage.notes() == ["attempt 1", "attempt 2"]
    # It was Dramatiq's copy: there is no monitor.
    assert (audit.enqueue_count, audit.crash_count) == (1, 0)


@pytest.mark.failure("14b")
def test_a_failed_job_is_retried_once_though_a_monitor_that_still_had_the_database_sent_it_too(
    far_database, eventually
):
    stage = far_database()
    stage.worker()
    message = stage.send("fails_once")
    stage.noted("attempt 1")
    stage.proxy.down()
    stage.open("failure")
    eventually(lambda: len(stage.notes("copies")) == 2, message="Dramatiq's copy")
    monitor = Monitor(stage.broker)
    eventually(lambda: monitor.run_once().recovered == 1, message="the lease never ends")

    stage.proxy.up()
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count) == ("completed", 2)
    eventually(lambda: stage.queued() == 0, message="a copy is left")
    assert stage.notes() == ["attempt 1", "attempt 2"]
