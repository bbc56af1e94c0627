"""The same few stories on every broker, in real worker and monitor processes."""

import dramatiq
import pytest

from .conftest import BROKERS, staged
from .staging import LONG

SOURCE = """
    import dramatiq
    from dramatiq.middleware.asyncio import AsyncIO

    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, number, staged_broker, wait_at


    class Watch(dramatiq.Middleware):
        def after_skip_message(self, broker, message):
            note(f"skipped {message.args[0]}")


    broker = staged_broker()
    broker.add_middleware(AsyncIO())
    broker.add_middleware(Watch())


    @durable_actor
    def job(text, *more):
        note(" ".join((text, *more)))
        return f"after {text}"


    @durable_actor
    def long(text):
        note(f"started {text}")
        wait_at("end")
        note(text)


    @durable_actor
    async def coroutine(text, *more):
        note(" ".join((text, *more)))
        return f"after {text}"


    @durable_actor(min_backoff=50, max_backoff=50)
    def fails_once(text):
        if number(text) == 1:
            raise ValueError(text)
        note(text)
"""

# Nothing is sent again only because the machine is slow.
PATIENT = {"heartbeat_interval": 5_000, "job_timeout": 20_000, "backoff": [0, LONG]}


@pytest.fixture(scope="module", params=BROKERS)
def stage(request, tmp_path_factory):
    """A worker and a monitor run; the message ``.lost`` was lost before they came."""
    kind, broker_options = BROKERS[request.param]
    folder = tmp_path_factory.mktemp("app")
    database_url = f"sqlite:///{folder / 'test.db'}"
    server = request.getfixturevalue(f"{kind}_server")
    with (
        server.fresh() as url,
        staged(folder, SOURCE, url, database_url, broker_options, **PATIENT) as stage,
    ):
        stage.lost = stage.send("job", "lost", heartbeat_interval=900, job_timeout=1_000)
        stage.lose()
        stage.monitor()
        stage.worker()
        yield stage


def counts(audit):
    return audit.state, audit.enqueue_count, audit.start_count


def test_what_is_sent_runs_and_is_completed(stage):
    [audit] = stage.finished(stage.send("job", "sent"))
    assert counts(audit) == ("completed", 1, 1)
    assert stage.notes().count("sent") == 1


def test_what_was_lost_is_recovered(stage):
    [audit] = stage.finished(stage.lost)
    assert counts(audit) == ("completed", 2, 1)
    assert stage.notes().count("lost") == 1


def test_what_raises_is_retried_by_dramatiq(stage):
    [audit] = stage.finished(stage.send("fails_once", "retried"))
    assert counts(audit) == ("completed", 1, 2)
    assert (audit.failure_count, audit.last_error) == (1, "ValueError: retried")
    assert stage.notes().count("retried") == 1


@pytest.mark.failure(15)
def test_a_second_copy_is_skipped_after_the_job_and_while_it_runs(stage, eventually):
    done = stage.send("job", "done")
    stage.finished(done)
    runs = stage.send("long", "runs")
    eventually(lambda: "started runs" in stage.notes())

    for message, text in [(done, "done"), (runs, "runs")]:
        stage.broker.enqueue(message)
        eventually(lambda text=text: f"skipped {text}" in stage.notes())
    assert stage.audit(runs).state == "running"

    stage.open("end")
    for audit in stage.finished(done, runs):
        assert counts(audit) == ("completed", 1, 1)
    assert [stage.notes().count(text) for text in ("done", "runs")] == [1, 1]
    assert stage.dead_letters() == 0


def test_pipelines_groups_and_coroutines_run_each_part_once(stage):
    first, second, third = (
        stage.message("job", "first"),
        stage.message("coroutine", "second"),
        stage.message("job", "third"),
    )
    alone = [stage.message("coroutine", "alone"), stage.message("job", "alone too")]
    pipeline = dramatiq.pipeline([first, second, third], broker=stage.broker)
    dramatiq.group([pipeline, *alone], broker=stage.broker).run()

    for audit in stage.finished(first, second, third, *alone):
        assert counts(audit) == ("completed", 1, 1)
    for text in ("first", "second after first", "third after second", "alone", "alone too"):
        assert stage.notes().count(text) == 1
