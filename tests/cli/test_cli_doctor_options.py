"""doctor: options that are legal, but fight each other."""

from datetime import timedelta

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.encoder import PickleEncoder
from dramatiq.middleware import AgeLimit, Retries, ShutdownNotifications, TimeLimit

from dramatiq_durable import durable_actor


def at_once(enqueue_count):
    return timedelta(0)


@pytest.fixture
def fights(command_on, sqlite_db, make_durable):
    """``fights(actor, middleware, add=…)``: what doctor says of the options of an actor that has these."""

    def run(actor, middleware=None, add=None):
        if add is None:
            add = [TimeLimit(), AgeLimit(), ShutdownNotifications()]
        broker = StubBroker(middleware=[Retries(), *add])
        make_durable(broker, sqlite_db, **(middleware or {}))
        durable_actor(actor_name="charge", broker=broker, **actor)(lambda: None)
        done = command_on(broker)("doctor", "--skip", "monitor")
        lines = [line for line in done.stdout.splitlines() if line.split()[1] == "options:"]
        bad = [line for line in lines if line.startswith("wrong")]
        assert done.exit_code == (1 if bad else 0)
        assert len(lines) == 1
        return " ".join(bad)

    return run


def test_the_defaults_go_together(fights):
    assert fights({}) == ""


@pytest.mark.parametrize(
    ("actor", "add"),
    [
        ({"heartbeat_interval": None}, [TimeLimit()]),
        ({"heartbeat_interval": None, "job_timeout": 60_000, "time_limit": 60_000}, [TimeLimit()]),
        ({"heartbeat_interval": None, "time_limit": float("inf")}, [TimeLimit()]),
        ({"heartbeat_interval": None}, []),
        ({"heartbeat_interval": None}, [TimeLimit(time_limit=600_001)]),
    ],
)
def test_a_job_without_heartbeats_that_may_run_longer_than_its_lease(fights, actor, add):
    line = fights(actor, add=add)
    assert "actor 'charge'" in line
    assert "started a second time beside that" in line


@pytest.mark.parametrize(
    ("actor", "add"),
    [
        ({"heartbeat_interval": None, "time_limit": 599_999}, [TimeLimit()]),
        ({"heartbeat_interval": None}, [TimeLimit(time_limit=599_999)]),
        ({"heartbeat_interval": 10_000, "time_limit": float("inf")}, [TimeLimit()]),
    ],
)
def test_one_whose_lease_is_renewed_or_lasts_longer_is_fine(fights, actor, add):
    assert fights(actor, add=add) == ""


def test_a_lease_that_ends_in_any_pause(fights):
    assert "worker that is slow for so long loses it" in fights({"heartbeat_interval": 999})


def test_a_lease_of_seconds_is_fine(fights):
    assert fights({"heartbeat_interval": 1_000}) == ""


@pytest.mark.parametrize("where", ["actor", "middleware"])
def test_a_max_age_that_is_over_when_a_lost_message_is_sent_again(fights, where):
    def line(max_age):
        if where == "actor":
            return fights({"max_age": max_age})
        return fights({}, add=[AgeLimit(max_age=max_age)])

    assert "so that its job is dead" in line(660_000)
    assert line(660_001) == ""


def test_an_expiration_that_is_over_when_a_lost_message_is_sent_again(fights):
    assert "this one chance and no other" in fights({}, {"expiration": 660_000})


def test_an_expiration_that_is_not(fights):
    assert fights({}, {"expiration": 660_001}) == ""


def test_a_backoff_of_ones_own_counts(fights):
    assert fights({"backoff": at_once, "job_timeout": 60_000}, {"expiration": 60_001}) == ""


def test_a_retention_within_which_a_message_may_still_wait(fights):
    options = {"retention": 1_199_999}
    assert "within half of retention" in fights({}, options)


def test_a_retention_that_is_long_enough(fights):
    assert fights({}, {"retention": 1_200_000}) == ""


def test_a_requeue_on_shutdown_of_which_nobody_tells(fights):
    line = fights({"requeue_on_shutdown": True}, add=[TimeLimit()])
    assert "does nothing without Dramatiq's ShutdownNotifications" in line


def test_one_with_dramatiqs_shutdown_is_fine(fights):
    assert fights({"requeue_on_shutdown": True}) == ""


def test_actors_that_are_not_durable_are_nobodys_business(
    command_on, sqlite_db, make_durable, stub_broker
):
    make_durable(stub_broker, sqlite_db)
    dramatiq.actor(max_age=1, heartbeat_interval=5)(lambda: None)
    assert command_on(stub_broker)("doctor", "--skip", "monitor").exit_code == 0


@pytest.mark.failure(52)
def test_pickles_that_are_not_signed(fights):
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    try:
        assert "whoever can write the audits can run any code" in fights({})
    finally:
        dramatiq.set_encoder(before)


@pytest.mark.failure(52)
def test_pickles_that_are_signed_are_fine(fights):
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    try:
        assert fights({}, {"signing_key": "k" * 16}) == ""
    finally:
        dramatiq.set_encoder(before)
