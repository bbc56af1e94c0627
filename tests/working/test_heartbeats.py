"""One thread per process renews the leases of all the jobs that run in it."""

from datetime import timedelta

import pytest
from dramatiq.middleware import TimeLimit

from dramatiq_durable import durable_actor

BEAT = timedelta(milliseconds=50)
LEASE = 4 * BEAT


@pytest.fixture
def events(sqlite_db):
    """The statements on the database, by our stores too, as peewee's events."""
    events = []
    sqlite_db.query_hooks.append(events.append)
    yield events
    sqlite_db.query_hooks.remove(events.append)


@pytest.fixture
def declare_long(durable, gate):
    """``declare_long(**options)``: an actor that stays at the gate."""

    def declare(**options):
        @durable_actor(**{"heartbeat_interval": BEAT, **options})
        def charge():
            gate.enter()

        return charge

    return declare


@pytest.mark.parity(17)
def test_the_lease_of_a_job_is_four_heartbeats_long(declare_long, gate, running_worker, audit_of):
    charge = declare_long(heartbeat_interval=timedelta(seconds=15))
    with running_worker(), gate:
        message = charge.send()
        gate.wait_for_body()
        audit = audit_of(message)
    assert audit.due_at - audit.started_at == timedelta(minutes=1)


@pytest.mark.parity(17)
def test_by_default_it_is_40_seconds(durable, gate, running_worker, audit_of):
    @durable_actor
    def charge():
        gate.enter()

    with running_worker(), gate:
        message = charge.send()
        gate.wait_for_body()
        audit = audit_of(message)
    assert audit.due_at - audit.started_at == timedelta(seconds=40)


@pytest.mark.parity(17)
def test_a_job_that_runs_for_longer_than_its_lease_is_not_sent_again(
    declare_long, gate, monitor, running_worker, eventually, audit_of
):
    with running_worker(), gate:
        message = declare_long().send()
        gate.wait_for_body()
        eventually(lambda: audit_of(message).due_at > audit_of(message).started_at + 3 * LEASE)
        assert monitor.run_once().recovered == 0
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 1, 0)


@pytest.mark.parity(17)
def test_one_statement_renews_all(declare_long, gate, events, running_worker, eventually):
    charge = declare_long()
    with running_worker(threads=8), gate:
        ids = {charge.send().message_id for _ in range(8)}
        for _ in ids:
            gate.wait_for_body()
        del events[:]
        eventually(lambda: len(events) >= 5)
        beats = events[:]
    # The first was sent when some of them had not started, perhaps.
    for beat in beats[1:]:
        assert beat.sql.startswith("UPDATE")
        assert ids <= set(beat.params)


def test_a_job_without_heartbeats_has_its_timeout_as_its_lease_and_is_not_renewed(
    durable, gate, events, running_worker, eventually, audit_of
):
    @durable_actor(heartbeat_interval=None, job_timeout=timedelta(minutes=5))
    def charge():
        gate.enter()

    @durable_actor(heartbeat_interval=BEAT)
    def ship():
        gate.enter()

    with running_worker(threads=2), gate:
        quiet, renewed = charge.send(), ship.send()
        gate.wait_for_body()
        gate.wait_for_body()
        del events[:]
        eventually(lambda: len(events) >= 3)
        beats = events[:]
        audit = audit_of(quiet)
        assert audit.due_at - audit.started_at == timedelta(minutes=5)
    assert all(renewed.message_id in beat.params for beat in beats)
    assert not any(quiet.message_id in beat.params for beat in beats)


def test_a_job_that_is_done_is_not_renewed(
    declare_long, durable, gate, events, running_worker, eventually, audit_of
):
    @durable_actor(heartbeat_interval=BEAT)
    def ship():
        pass

    with running_worker(threads=2), gate:
        declare_long().send()
        gate.wait_for_body()
        shipped = ship.send()
        eventually(lambda: audit_of(shipped).state == "completed")
        del events[:]
        eventually(lambda: len(events) >= 3)
        beats = events[:]
    assert not any(shipped.message_id in beat.params for beat in beats)


@pytest.mark.failure(18)
@pytest.mark.parametrize("of", ["actor", "message", "middleware"])
def test_renewal_ends_with_the_time_limit(
    stub_broker,
    declare_long,
    gate,
    clock,
    monitor,
    running_worker,
    eventually,
    audit_of,
    caplog,
    of,
):
    """Nothing interrupts the body here, as nothing can interrupt one that hangs in C."""
    options = {"time_limit": 300}
    if of == "middleware":
        [limit] = [m for m in stub_broker.middleware if isinstance(m, TimeLimit)]
        limit.time_limit = 300
    charge = declare_long(**options if of == "actor" else {})
    with running_worker(), gate:
        message = charge.send_with_options(**options if of == "message" else {})
        gate.wait_for_body()
        eventually(lambda: "overrun its time limit" in caplog.text)
        audit = audit_of(message)
        assert audit.due_at - audit.started_at > LEASE
        assert message.message_id in caplog.text
        clock.move(seconds=1)
        assert monitor.run_once().recovered == 1


@pytest.mark.failure(18)
def test_without_a_time_limit_renewal_goes_on(
    declare_long, gate, running_worker, eventually, audit_of, caplog
):
    charge = declare_long(time_limit=float("inf"))
    with running_worker(), gate:
        message = charge.send()
        gate.wait_for_body()
        eventually(lambda: audit_of(message).due_at > audit_of(message).started_at + 5 * LEASE)
    assert "overrun" not in caplog.text
    assert audit_of(message).state == "completed"
