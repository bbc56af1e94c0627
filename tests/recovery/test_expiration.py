"""Open audits expire into ``dead``, where an operator finds them."""

import threading
from datetime import timedelta

import pytest

from dramatiq_durable import Monitor, RequeueImmediately, durable_actor

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

# A monitor that sends carries on the database's clock from its last read, whose round trip took a while.
STALE_AGAIN = {"hours": 1, "seconds": 1}


@pytest.fixture
def impatient(declare):
    """An actor whose lost messages are stale after an hour, each time."""
    return declare(job_timeout=HOUR, backoff=lambda count: timedelta(0))


@pytest.fixture
def lose(stub_broker, clock):
    """``lose(days=1)``: the broker loses everything, and time passes."""

    def lose(**duration):
        stub_broker.flush_all()
        clock.move(**duration)

    return lose


@pytest.mark.failure(8)
@pytest.mark.parametrize("delay", [4 * DAY, 60 * DAY])
def test_a_job_delayed_for_longer_than_the_expiration_runs_at_its_eta(
    stub_broker, stub_durable, impatient, ran, work, lose, clock, monitor, audit_of, delay
):
    message = impatient.send_with_options(args=(42,), delay=delay)
    for _ in range(delay // DAY):
        done = monitor.run_once()
        assert (done.recovered, done.dead, done.deleted) == (0, 0, 0)
        clock.move(days=1)
    lose(hours=1)
    done = monitor.run_once()
    assert (done.recovered, done.dead) == (1, 0)
    work()
    assert ran == [42]
    assert audit_of(message).enqueue_count == 2


@pytest.mark.parity(28)
def test_an_open_audit_expires_three_days_after_its_start_and_not_before(
    stub_durable, impatient, lose, monitor, audit_of
):
    message = impatient.send(42)
    lose(hours=1)
    assert monitor.run_once().recovered == 1
    lose(days=3, hours=-1, seconds=-5)
    done = monitor.run_once()
    assert (done.recovered, done.dead) == (1, 0)

    lose(**STALE_AGAIN)
    done = monitor.run_once()
    assert (done.recovered, done.dead) == (0, 1)
    audit = audit_of(message)
    assert (audit.state, audit.due_at) == ("dead", None)
    assert "expiration" in audit.last_error


@pytest.mark.failure(8)
def test_the_expiration_of_a_delayed_job_counts_from_its_eta(
    stub_durable, impatient, lose, monitor, audit_of
):
    message = impatient.send_with_options(args=(42,), delay=10 * DAY)
    lose(days=10, hours=1)
    assert monitor.run_once().recovered == 1
    lose(days=3, hours=-1, seconds=-5)
    assert monitor.run_once().recovered == 1
    lose(**STALE_AGAIN)
    assert monitor.run_once().dead == 1
    assert audit_of(message).state == "dead"


@pytest.mark.parity(28)
@pytest.mark.parametrize("days", [3, 30, 300])
def test_an_audit_that_was_not_sent_again_yet_does_not_expire(
    stub_durable, impatient, ran, work, lose, monitor, days
):
    """No monitor ran for so long; the job has a chance all the same."""
    impatient.send(42)
    lose(days=days)
    done = monitor.run_once()
    assert (done.recovered, done.dead) == (1, 0)
    work()
    assert ran == [42]


@pytest.mark.failure(3)
def test_a_job_that_the_broker_refused_for_longer_than_the_expiration_is_sent_twice_at_least(
    switchable, sqlite_db, make_durable, declare, clock, monitor, audit_of
):
    make_durable(switchable, sqlite_db)
    switchable.error = ConnectionRefusedError()
    message = declare(job_timeout=HOUR, backoff=lambda count: timedelta(0)).send(42)
    clock.move(days=30)
    assert monitor.run_once().outage
    clock.move(days=30)

    switchable.error = None
    for recovered, dead in ((1, 0), (1, 0), (0, 1)):
        done = monitor.run_once()
        assert (done.recovered, done.dead) == (recovered, dead)
        switchable.flush_all()
        clock.move(hours=1, seconds=1)
    assert audit_of(message).state == "dead"


@pytest.mark.parity(23)
def test_a_job_that_asks_to_be_run_again_every_day_never_expires(
    stub_durable, work, clock, monitor, audit_of
):
    @durable_actor
    def look_again():
        raise RequeueImmediately

    message = look_again.send()
    for _ in range(10):
        work()
        clock.move(days=1)
        done = monitor.run_once()
        assert (done.recovered, done.dead) == (1, 0)
    assert audit_of(message).requeue_count == 10


@pytest.mark.parity(28)
@pytest.mark.parametrize("option", ["middleware", "monitor"])
def test_the_expiration_is_the_middlewares_or_the_monitors(
    stub_broker, sqlite_db, make_durable, declare, lose, audit_of, option
):
    week = 7 * DAY
    make_durable(stub_broker, sqlite_db, **({"expiration": week} if option == "middleware" else {}))
    monitor = Monitor(stub_broker, expiration=week if option == "monitor" else None)
    message = declare(job_timeout=HOUR, backoff=lambda count: timedelta(0)).send(42)
    lose(days=6)
    assert monitor.run_once().recovered == 1
    lose(days=1, seconds=-5)
    assert monitor.run_once().recovered == 1
    lose(**STALE_AGAIN)
    assert monitor.run_once().dead == 1
    assert audit_of(message).state == "dead"


@pytest.mark.parity(28)
@pytest.mark.failure("28c")
def test_a_dead_job_keeps_its_payload_and_runs_when_it_is_retried(
    stub_durable, impatient, ran, work, lose, monitor, audit_of
):
    message = impatient.send(42)
    payload = bytes(audit_of(message).payload)
    for _ in range(2):
        lose(days=4)
        monitor.run_once()
    assert audit_of(message).state == "dead"
    assert bytes(audit_of(message).payload) == payload
    work()
    assert ran == []

    assert list(stub_durable.store.retry([message.message_id])) == [1]
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


@pytest.mark.parity(28)
def test_a_copy_of_a_dead_job_that_turns_up_late_does_not_run(
    stub_broker, stub_durable, impatient, ran, work, clock, monitor, audit_of
):
    message = impatient.send(42)
    for _ in range(2):
        clock.move(days=4)
        monitor.run_once()
    assert audit_of(message).state == "dead"
    assert stub_broker.queues["default"].qsize() == 2
    work()
    assert ran == []
    assert audit_of(message).state == "dead"


@pytest.mark.failure(25)
@pytest.mark.parity(28)
def test_a_job_that_still_runs_at_its_expiration_is_not_given_up(
    stub_durable, running_worker, lose, clock, monitor, audit_of, eventually
):
    go_on, running = threading.Event(), threading.Event()

    @durable_actor
    def long():
        running.set()
        assert go_on.wait(30)

    message = long.send()
    lose(days=1)
    assert monitor.run_once().recovered == 1
    with running_worker():
        assert running.wait(30)
        assert monitor.run_once().dead == 0
        assert audit_of(message).state == "running"
        go_on.set()
        eventually(lambda: audit_of(message).state == "completed")


@pytest.mark.failure(24)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_max_crashes_makes_a_job_dead_that_kills_each_of_its_workers(
    stub_broker, stub_durable, declare, clock, monitor, audit_of, die_while_running, limit
):
    message = declare(max_crashes=limit).send(42)
    for crash in range(1, limit + 1):
        die_while_running(stub_durable, message)
        clock.move(hours=1)
        done = monitor.run_once()
        assert (done.recovered, done.dead) == ((1, 0) if crash < limit else (0, 1))
    audit = audit_of(message)
    assert (audit.state, audit.crash_count) == ("dead", limit)
    assert audit.payload
