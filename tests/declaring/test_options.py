"""Options that make no sense are refused where they are written."""

from datetime import timedelta

import dramatiq
import peewee
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, DurableError, DurableMiddleware, durable_actor

HOUR = 3_600_000


class Unbound(Audit):
    pass


NONSENSE = [
    *(
        (name, value)
        for name in ("job_timeout", "heartbeat_interval", "max_crashes", "max_payload_size")
        for value in (0, -1, True, "60000", 1.5, [60_000])
    ),
    ("job_timeout", timedelta(0)),
    ("job_timeout", timedelta(seconds=-1)),
    ("job_timeout", timedelta(microseconds=999)),
    ("heartbeat_interval", timedelta(0)),
    ("max_crashes", timedelta(seconds=1)),
    ("durable", 1),
    ("durable", "yes"),
    ("requeue_on_shutdown", "no"),
    ("requeue_on_shutdown", 0),
    ("backoff", 60_000),
    ("backoff", timedelta(minutes=1)),
    ("backoff", lambda enqueue_count: 60_000),
    ("backoff", lambda enqueue_count: timedelta(seconds=-1)),
    ("backoff", lambda: timedelta(minutes=1)),
    ("backoff", lambda enqueue_count: timedelta(minutes=1 / (enqueue_count - 1))),
    ("audit_model", "durable_audits"),
    ("audit_model", peewee.Model),
    ("audit_model", Unbound),
]

NONSENSE_OF_THE_MIDDLEWARE = [
    *NONSENSE,
    *(
        (name, value)
        for name in ("expiration", "retention", "dead_retention")
        for value in (0, -2, True, "1d", 0.5, timedelta(0))
    ),
    ("expiration", -1),
    ("retention", -1),
]


def named(value):
    return value if isinstance(value, str) and value.isidentifier() else None


@pytest.fixture
def declare():
    def declare(**options):
        return durable_actor(actor_name="job", **options)(lambda *args: None)

    return declare


@pytest.mark.parity(7)
@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=named)
def test_an_option_that_makes_no_sense_is_refused_when_the_actor_is_declared(
    stub_broker, durable, declare, name, value
):
    with pytest.raises(ValueError, match=name) as caught:
        declare(**{name: value})
    assert isinstance(caught.value, DurableError)
    assert "'job'" in str(caught.value)
    assert stub_broker.get_declared_actors() == set()


@pytest.mark.parity(7)
@pytest.mark.parametrize(("name", "value"), NONSENSE_OF_THE_MIDDLEWARE, ids=named)
def test_an_option_that_makes_no_sense_is_refused_by_the_middleware(sqlite_db, name, value):
    with pytest.raises(ValueError, match=name) as caught:
        DurableMiddleware(sqlite_db, **{name: value})
    assert isinstance(caught.value, DurableError)
    assert "DurableMiddleware" in str(caught.value)


@pytest.mark.parity(7)
@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, value in NONSENSE if name not in {"backoff", "audit_model"}],
    ids=named,
)
def test_an_option_that_makes_no_sense_is_refused_at_send_with_nothing_written(
    durable, declare, audits, waiting, name, value
):
    job = declare()
    with pytest.raises(ValueError, match=name) as caught:
        job.send_with_options(**{name: value})
    assert isinstance(caught.value, DurableError)
    assert "'job'" in str(caught.value)
    assert (audits(durable), waiting()) == ([], 0)


@pytest.mark.parity(17)
@pytest.mark.parametrize(
    "options",
    [
        {"job_timeout": 60_000, "heartbeat_interval": 60_000},
        {"job_timeout": 60_000, "heartbeat_interval": 60_001},
        {"job_timeout": 10_000},
        {"heartbeat_interval": 600_000},
        {"heartbeat_interval": timedelta(hours=1)},
    ],
    ids=str,
)
def test_heartbeats_no_more_frequent_than_the_timeout_are_refused(
    stub_broker, sqlite_db, durable, declare, audits, waiting, options
):
    with pytest.raises(ValueError, match="heartbeat_interval") as caught:
        DurableMiddleware(sqlite_db, **options)
    assert "job_timeout" in str(caught.value)
    with pytest.raises(ValueError, match="heartbeat_interval"):
        declare(**options)
    job = declare()
    with pytest.raises(ValueError, match="heartbeat_interval"):
        job.send_with_options(**options)
    assert (audits(durable), waiting()) == ([], 0)


@pytest.mark.parity(17)
@pytest.mark.parametrize(
    "options",
    [
        {"job_timeout": 60_000, "heartbeat_interval": 59_999},
        {"job_timeout": 10_001},
        {"job_timeout": 1, "heartbeat_interval": None},
        {"heartbeat_interval": 599_999},
        {"job_timeout": 30 * 24 * HOUR, "heartbeat_interval": 29 * 24 * HOUR},
    ],
    ids=str,
)
def test_heartbeats_more_frequent_than_the_timeout_are_accepted(
    sqlite_db, durable, declare, audits, options
):
    assert DurableMiddleware(sqlite_db, **options)
    job = declare(**options)
    job.send()
    job.send_with_options(**options)
    assert len(audits(durable)) == 2


@pytest.mark.parity(17)
def test_the_actors_heartbeats_are_compared_with_the_timeout_of_the_middleware(
    stub_broker, sqlite_db, make_durable, declare
):
    make_durable(stub_broker, sqlite_db, job_timeout=30_000)
    with pytest.raises(ValueError, match="heartbeat_interval"):
        declare(heartbeat_interval=30_000)
    assert declare(heartbeat_interval=29_999)


@pytest.mark.parity(17)
def test_an_actor_that_is_not_durable_may_combine_them_as_it_likes(durable):
    assert dramatiq.actor(actor_name="job", job_timeout=10_000)(lambda: None)


@pytest.mark.parity(7)
@pytest.mark.parametrize(
    ("retention", "dead_retention", "accepted"),
    [
        (HOUR, HOUR, True),
        (HOUR, HOUR - 1, False),
        (HOUR, -1, True),
        (15 * 24 * HOUR, None, False),
        (14 * 24 * HOUR, None, True),
        (None, 24 * HOUR, True),
        (None, 24 * HOUR - 1, False),
        (timedelta(days=2), timedelta(days=1), False),
    ],
)
def test_dead_audits_may_not_be_deleted_before_the_completed_ones(
    sqlite_db, retention, dead_retention, accepted
):
    def make():
        return DurableMiddleware(sqlite_db, retention=retention, dead_retention=dead_retention)

    if accepted:
        assert make()
    else:
        with pytest.raises(ValueError, match="dead_retention"):
            make()


def test_an_unknown_option_of_the_middleware_is_refused_with_those_there_are(sqlite_db):
    with pytest.raises(DurableError, match="job_timout") as caught:
        DurableMiddleware(sqlite_db, job_timout=60_000)
    assert "job_timeout" in str(caught.value)


@pytest.mark.parametrize("name", ["job_timout", "expiration", "retention", "namespace"])
def test_what_is_no_option_of_an_actor_is_refused_by_dramatiq(durable, declare, name):
    with pytest.raises(ValueError, match=name):
        declare(**{name: 60_000})


@pytest.mark.parametrize("namespace", [5, "", b"shop", ["shop"]], ids=repr)
def test_a_namespace_that_is_no_name_is_refused(sqlite_db, namespace):
    with pytest.raises(ValueError, match="namespace") as caught:
        DurableMiddleware(sqlite_db, namespace=namespace)
    assert isinstance(caught.value, DurableError)


@pytest.mark.failure(48)
@pytest.mark.parametrize("what", ["actor_name", "queue_name", "namespace"])
def test_a_name_that_the_table_cannot_hold_is_refused(stub_broker, sqlite_db, make_durable, what):
    def declare(length):
        name = "n" * length
        if what == "namespace":
            return DurableMiddleware(sqlite_db, namespace=name)
        broker = StubBroker()
        make_durable(broker, sqlite_db)
        options = {"actor_name": "job", what: name}
        return durable_actor(broker=broker, **options)(lambda: None)

    assert declare(255)
    with pytest.raises(DurableError, match="longer than 255"):
        declare(256)
