"""Two applications, each with a namespace of its own, on one table."""

import json

import pytest

SOURCE = """
    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, staged_broker

    broker = staged_broker()


    @durable_actor
    def job(text):
        note(text)
"""

# Each message is stale, and each finished audit past its retention, a millisecond later.
PAST_AT_ONCE = {
    "heartbeat_interval": None,
    "job_timeout": 1,
    "retention": 1,
    "dead_retention": 1,
}


@pytest.fixture
def two_apps(make_stage, redis_url, sqlite_url):
    """``two_apps(**options)``: two stages on one table, each with a namespace of its own."""

    def make(**options):
        return [
            make_stage(SOURCE, redis_url, sqlite_url, {"namespace": name}, **options)
            for name in ("ours", "theirs")
        ]

    return make


@pytest.fixture
def neighbours(two_apps):
    """Two applications with two audits each: one stale, one cancelled and past its retention."""
    made = two_apps(**PAST_AT_ONCE)
    for stage in made:
        stage.stale = stage.send("job", "stale")
        stage.cancelled = stage.send("job", "cancelled")
        assert sum(stage.durable.store.cancel([stage.cancelled.message_id])) == 1
        assert len(stage.audits()) == 2
    return made


def rows(stage):
    return [audit.__data__ for audit in stage.audits()]


@pytest.mark.failure(45)
@pytest.mark.parametrize(
    ("command", "did"),
    [
        ("monitor app:broker --once", "recovered 1, dead 0, deleted 1, failed 0"),
        ("purge app:broker --yes", "deleted 1"),
        ("cancel app:broker --actor job --yes", "cancelled 1"),
        ("retry app:broker --actor job --yes", "retried 1"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_command_of_one_application_leaves_the_audits_of_the_other_alone(
    neighbours, command, did
):
    ours, theirs = neighbours
    before = rows(theirs)
    done = ours.app.run(*command.split())
    assert (done.returncode, done.stdout.strip()) == (0, did)
    assert rows(theirs) == before


@pytest.mark.failure(45)
@pytest.mark.parametrize(("verb", "whose"), [("cancel", "stale"), ("retry", "cancelled")])
def test_the_ids_of_another_application_are_unknown(neighbours, verb, whose):
    ours, theirs = neighbours
    before = rows(theirs)
    message_id = getattr(theirs, whose).message_id
    done = ours.app.run(verb, "app:broker", message_id)
    assert done.returncode == 1
    assert rows(theirs) == before


@pytest.mark.failure(45)
def test_status_and_list_show_one_application_only(neighbours):
    ours, _theirs = neighbours
    seen = ours.status()
    assert seen["namespace"] == "ours"
    assert {state: count for state, count in seen["states"].items() if count} == {
        "pending": 1,
        "cancelled": 1,
    }
    listed = json.loads(ours.app.run("list", "app:broker", "--json").stdout)
    assert {row["message_id"] for row in listed} == {
        ours.stale.message_id,
        ours.cancelled.message_id,
    }


@pytest.fixture
def one_app_each(make_stage, rabbitmq_server, sqlite_url):
    """Two stages on RabbitMQ, where a namespace is the middleware's alone."""
    with rabbitmq_server.fresh() as first, rabbitmq_server.fresh() as second:
        urls = {"ours": first, "theirs": second}
        yield [make_stage(SOURCE, url, sqlite_url, namespace=name) for name, url in urls.items()]


@pytest.fixture(params=["redis", "rabbitmq"])
def both(request):
    if request.param == "redis":
        return request.getfixturevalue("two_apps")()
    return request.getfixturevalue("one_app_each")


@pytest.mark.failure(45)
def test_lost_jobs_of_two_applications_on_one_table_run_each_in_its_own(both):
    ours, theirs = both
    sent = {stage: [stage.send("job", str(n)) for n in range(5)] for stage in both}
    for stage in both:
        stage.lose()
        stage.monitor()
    ours.worker()
    assert {audit.state for audit in ours.finished(*sent[ours])} == {"completed"}
    assert {audit.state for audit in theirs.audits()} == {"pending"}

    theirs.worker()
    assert {audit.state for audit in theirs.finished(*sent[theirs])} == {"completed"}
    for stage in both:
        stage.noted(*"01234")
        assert len(stage.audits()) == 5
