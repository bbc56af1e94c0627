"""The worker process dies by SIGKILL, in each moment of a job's life."""

import json

import pytest
from dramatiq.results.backends import RedisBackend

from .conftest import BROKERS

POINTS = """
    import dramatiq

    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.crashes.staging import die, first, note, staged_broker

    broker = staged_broker()


    class DieBeforeTheClaim(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            if message.args[0] == "before the claim" and first("death"):
                die()


    class DieLater(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            if message.args[0] == "after the claim" and first("death"):
                die()

        def before_ack(self, broker, message):
            if message.args[0] == "before the ack" and first("death"):
                [durable] = [m for m in broker.middleware if isinstance(m, DurableMiddleware)]
                assert durable.flush()
                die()

        def after_skip_message(self, broker, message):
            if message.args[0] == "before the ack":
                note("skipped")


    broker.add_middleware(DieBeforeTheClaim(), before=DurableMiddleware)
    broker.add_middleware(DieLater())


    @durable_actor
    def job(point):
        note(point)
        if point == "after the effect" and first("death"):
            die()
"""

# Dramatiq's own redelivery on Redis waits for a minute, and then for luck.
REDELIVERING = {"heartbeat_timeout": 1_000, "maintenance_chance": 1_000_000}


@pytest.fixture
def database_url(sqlite_url):
    return sqlite_url


@pytest.fixture(params=BROKERS)
def kind(request):
    return request.param


@pytest.fixture
def make_points(request, kind, make_stage, database_url):
    """``make_points(**broker_options)``: a stage of POINTS on this kind of broker."""
    server, options = BROKERS[kind]
    url = request.getfixturevalue(f"{server}_url")
    return lambda **more: make_stage(POINTS, url, database_url, broker_options={**options, **more})


@pytest.mark.failure(12)
def test_a_job_whose_worker_dies_before_the_claim_runs_once(make_points):
    stage = make_points()
    stage.monitor()
    dying = stage.worker()
    message = stage.send("job", "before the claim")
    assert dying.wait() != 0
    assert stage.audit(message).state == "pending"

    stage.worker()
    [audit] = stage.finished(message)
    assert stage.notes() == ["before the claim"]
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 1, 0)


@pytest.mark.failure(12)
@pytest.mark.parametrize(("point", "effects"), [("after the claim", 1), ("after the effect", 2)])
def test_a_job_whose_worker_dies_while_it_runs_runs_again_when_the_lease_is_over(
    make_points, point, effects
):
    stage = make_points()
    stage.monitor()
    dying = stage.worker()
    message = stage.send("job", point)
    abandoned = stage.started(message, 1)
    assert dying.wait() != 0

    stage.worker()
    [audit] = stage.finished(message)
    assert stage.notes() == [point] * effects
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 2, 1)
    # RabbitMQ has redelivered the message long before.
    assert audit.started_at >= abandoned.due_at


@pytest.mark.failure(12)
def test_a_job_whose_worker_dies_between_completion_and_ack_is_skipped(
    make_points, kind, eventually
):
    stage = make_points(**(REDELIVERING if kind == "redis" else {}))
    dying = stage.worker()
    message = stage.send("job", "before the ack")
    assert dying.wait() != 0
    assert stage.audit(message).state == "completed"

    stage.worker()
    stage.noted("before the ack", "skipped")
    eventually(lambda: stage.queued() == 0, message="the copy is not acked")
    assert stage.dead_letters() == 0
    assert stage.audit(message).start_count == 1


FOLLOW_UPS = """
    import os

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.middleware import Pipelines, Retries
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.crashes.staging import die, first, note, staged_broker

    broker = staged_broker()


    class Die(dramatiq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            if message.actor_name == "job" and first("death"):
                die()


    # After-hooks run from the last to the first: ours, then the death, then what follows up.
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["RESULTS_URL"])), before=Retries)
    broker.add_middleware(Die(), {position})


    @durable_actor(store_results=True)
    def job(text):
        note(text)
        return text


    @durable_actor
    def step(*args):
        note("step")


    @durable_actor
    def callback(message, result):
        note("callback")
"""

BEFORE_THE_FOLLOW_UPS = FOLLOW_UPS.replace("{position}", "before=DurableMiddleware")
AFTER_THE_FOLLOW_UPS = FOLLOW_UPS.replace("{position}", "before=type(broker.middleware[0])")


@pytest.fixture
def follow_ups(make_stage, redis_url, database_url):
    """``follow_ups(source, broker_url)``: a stage whose results are in Redis."""
    environment = {"RESULTS_URL": redis_url}
    return lambda source, broker_url: make_stage(
        source, broker_url, database_url, environment=environment
    )


@pytest.fixture
def result_of(redis_url):
    """``result_of(message)``: what is stored; it may not be there yet."""
    backend = RedisBackend(url=redis_url)
    yield lambda message: backend.get_result(message, block=True, timeout=20_000)
    backend.client.close()


@pytest.mark.failure(13)
def test_step_callback_and_result_come_although_the_worker_died_before_them(
    follow_ups, redis_url, result_of
):
    stage = follow_ups(BEFORE_THE_FOLLOW_UPS, redis_url)
    stage.monitor()
    dying = stage.worker()
    step = stage.message("step")
    job = stage.send("job", "job", pipe_target=step.asdict(), on_success="callback")
    assert dying.wait() != 0
    assert [audit.actor_name for audit in stage.audits()] == ["job"]

    stage.worker()
    assert result_of(job) == "job"
    stage.noted("job", "job", "step", "callback")
    assert [audit.state for audit in stage.finished(job, step)] == ["completed"] * 2


@pytest.mark.failure(13)
def test_a_step_that_was_sent_before_the_worker_died_runs_once(follow_ups, rabbitmq_url):
    stage = follow_ups(AFTER_THE_FOLLOW_UPS, rabbitmq_url)
    stage.monitor()
    dying = stage.worker("-t", "1")  # nobody else in it could start the step
    step = stage.message("step")
    job = stage.send("job", "job", pipe_target=step.asdict())
    assert dying.wait() != 0
    assert stage.audit(step).start_count == 0

    stage.worker()
    assert [audit.start_count for audit in stage.finished(job, step)] == [2, 1]
    stage.noted("job", "job", "step")


KILLS_ITS_WORKER = """
    import os

    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, number, staged_broker, wait_at

    broker = staged_broker()


    @durable_actor(max_crashes=3)
    def job(text):
        note(text)
        wait_at(f"death {number('start')}")
        os._exit(1)
"""


@pytest.mark.failure(24)
def test_a_job_that_kills_its_worker_each_time_is_slowed_and_then_dead(
    make_stage, rabbitmq_url, database_url
):
    options = {"heartbeat_interval": None, "job_timeout": 1_000, "backoff": [0, 0.5]}
    stage = make_stage(KILLS_ITS_WORKER, rabbitmq_url, database_url, **options)
    stage.monitor()
    message = stage.send("job", "poison")

    starts = []
    for count in (1, 2, 3):
        worker = stage.worker()
        starts.append(stage.started(message, count))
        stage.open(f"death {count}")
        assert worker.wait() != 0
    stage.worker()  # it would run the job again, were there a copy to run
    [audit] = stage.finished(message)

    assert (audit.state, audit.start_count, audit.crash_count) == ("dead", 3, 3)
    assert json.loads(audit.payload)["args"] == ["poison"]
    assert stage.notes() == ["poison"] * 3
    # The lease for the first, as for any crash; then the backoff too, although RabbitMQ redelivers at once.
    waits = [(start.due_at - start.started_at).total_seconds() for start in starts]
    assert waits == [1, 1.5, 1.5]
    assert starts[1].started_at >= starts[0].due_at
    assert starts[2].started_at >= starts[1].due_at
