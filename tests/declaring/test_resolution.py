"""Options are resolved message → actor → middleware; 0, False and None are values."""

from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import durable_actor

DAY = 86_400_000


@pytest.fixture
def sent(stub_broker, sqlite_db, make_durable, audit_of):
    """``sent({middleware's}, {actor's}, {message's})``: the audit of a message with these options."""

    def send(middleware, actor, message):
        make_durable(stub_broker, sqlite_db, **middleware)
        job = dramatiq.actor(actor_name="job", **{"durable": True, **actor})(lambda: None)
        return audit_of(job.send_with_options(**message))

    return send


def milliseconds(audit, column):
    return getattr(audit, column) / 1_000


@pytest.mark.parity(6)
@pytest.mark.parametrize(
    ("middleware", "actor", "message", "expected"),
    [
        ({}, {}, {}, 600_000),
        ({"job_timeout": 100_000}, {}, {}, 100_000),
        ({"job_timeout": 100_000}, {"job_timeout": 200_000}, {}, 200_000),
        ({"job_timeout": 100_000}, {"job_timeout": 200_000}, {"job_timeout": 300_000}, 300_000),
        ({"job_timeout": 100_000}, {}, {"job_timeout": 300_000}, 300_000),
        ({"job_timeout": 100_000}, {"job_timeout": None}, {}, 100_000),
        ({"job_timeout": 100_000}, {"job_timeout": 200_000}, {"job_timeout": None}, 200_000),
        ({"job_timeout": None}, {}, {}, 600_000),
    ],
)
def test_the_nearest_job_timeout_counts(sent, middleware, actor, message, expected):
    audit = sent(middleware, actor, message)
    assert milliseconds(audit, "job_timeout") == expected
    late = audit.due_at - audit.created_at
    assert late == timedelta(milliseconds=expected, minutes=1)  # and the first backoff


@pytest.mark.parametrize(
    ("middleware", "actor", "message", "lease"),
    [
        ({}, {}, {}, 40_000),
        ({"heartbeat_interval": 100}, {}, {}, 400),
        ({"heartbeat_interval": 100}, {"heartbeat_interval": 200}, {}, 800),
        (
            {"heartbeat_interval": 100},
            {"heartbeat_interval": 200},
            {"heartbeat_interval": 300},
            1_200,
        ),
        ({"heartbeat_interval": None}, {}, {}, 600_000),
        ({"heartbeat_interval": None}, {"heartbeat_interval": 200}, {}, 800),
        ({}, {"heartbeat_interval": None}, {}, 600_000),
        ({}, {"heartbeat_interval": 200}, {"heartbeat_interval": None}, 600_000),
        ({}, {"heartbeat_interval": None}, {"heartbeat_interval": 300}, 1_200),
    ],
)
def test_the_nearest_heartbeat_interval_counts_and_none_switches_it_off(
    sent, middleware, actor, message, lease
):
    assert milliseconds(sent(middleware, actor, message), "lease") == lease


@pytest.mark.parametrize(
    ("middleware", "actor", "message", "audited"),
    [
        ({}, {"durable": None}, {}, False),
        ({"durable": True}, {"durable": None}, {}, True),
        ({"durable": True}, {"durable": False}, {}, False),
        ({"durable": True}, {"durable": False}, {"durable": True}, True),
        ({}, {"durable": True}, {"durable": False}, False),
        ({}, {"durable": True}, {"durable": None}, True),
        ({}, {"durable": False}, {"durable": True}, True),
    ],
)
def test_the_nearest_durable_counts_and_false_is_a_value(sent, middleware, actor, message, audited):
    assert (sent(middleware, actor, message) is not None) == audited


def test_a_backoff_of_nothing_is_a_value(sent):
    audit = sent({}, {"backoff": lambda enqueue_count: timedelta(0)}, {})
    assert audit.due_at - audit.created_at == timedelta(minutes=10)


def test_the_backoff_of_the_middleware_is_that_of_actors_without_one(sent):
    audit = sent({"backoff": lambda count: count * timedelta(hours=1)}, {}, {})
    assert audit.due_at - audit.created_at == timedelta(minutes=70)


@pytest.mark.parametrize("where", range(3))
def test_durations_may_be_timedeltas_everywhere(sent, where):
    levels = [{}, {}, {}]
    levels[where] = {
        "job_timeout": timedelta(minutes=2, milliseconds=1),
        "heartbeat_interval": timedelta(seconds=1.5),
    }
    audit = sent(*levels)
    assert milliseconds(audit, "job_timeout") == 120_001
    assert milliseconds(audit, "lease") == 6_000


def test_a_timedelta_of_a_message_comes_through_the_broker(
    stub_broker, durable, work, audit_of, clock, monitor
):
    ran = []
    job = durable_actor(actor_name="job")(lambda: ran.append(1))
    message = job.send_with_options(job_timeout=timedelta(minutes=2))
    stub_broker.flush_all()
    clock.move(minutes=3)
    monitor.run_once()
    work()
    assert ran == [1]
    assert audit_of(message).state == "completed"


in_both_units = pytest.mark.parametrize("day", [DAY, timedelta(days=1)], ids=["int", "timedelta"])


@in_both_units
def test_the_expiration_may_be_a_timedelta(
    stub_broker, sqlite_db, make_durable, clock, monitor, audit_of, day
):
    make_durable(stub_broker, sqlite_db, expiration=day)
    message = durable_actor(actor_name="job")(lambda: None).send()
    clock.move(minutes=11)
    monitor.run_once()
    clock.move(hours=23, minutes=48)
    assert monitor.run_once().recovered == 1
    clock.move(hours=1)
    assert monitor.run_once().dead == 1
    assert audit_of(message).state == "dead"


class Final(Exception):
    """What actors raise when there is no point in another try."""


@in_both_units
@pytest.mark.parametrize("option", ["retention", "dead_retention"])
def test_the_retentions_may_be_timedeltas(
    stub_broker, sqlite_db, make_durable, clock, monitor, work, audit_of, option, day
):
    make_durable(stub_broker, sqlite_db, **{"retention": 1_000, option: day})

    @durable_actor(throws=Final)
    def job():
        if option == "dead_retention":
            raise Final

    message = job.send()
    work()
    assert audit_of(message).finished_at is not None
    clock.move(hours=23, minutes=59)
    assert monitor.run_once().deleted == 0
    clock.move(minutes=1)
    assert monitor.run_once().deleted == 1


def test_an_expiration_past_the_end_of_the_calendar_is_refused_or_means_never(
    stub_broker, sqlite_db, make_durable, clock, monitor, audit_of
):
    try:
        make_durable(stub_broker, sqlite_db, expiration=timedelta.max)
    except ValueError:
        return
    message = durable_actor(actor_name="job")(lambda: None).send()
    for _ in range(2):
        clock.move(hours=1)
        assert monitor.run_once().recovered == 1
    assert audit_of(message).state == "pending"
