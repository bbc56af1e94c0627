"""When a lost message, a failed job and a job whose worker died are run again."""

from datetime import timedelta
from typing import Any

import pytest

from dramatiq_durable import Monitor, cubic_backoff, durable_actor

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NEVER = timedelta(days=10_000)


@pytest.mark.parity(4)
def test_a_job_the_broker_lost_runs_after_its_timeout_and_backoff(
    broker, durable, declare, ran, work, clock, monitor, audit_of
):
    message = declare().send(42)
    broker.flush_all()

    clock.move(minutes=10, seconds=55)
    assert monitor.run_once().recovered == 0
    work()
    assert ran == []

    clock.move(seconds=5)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


def losses(broker, monitor, clock, audit_of, message, *, within):
    """How often *monitor* sends a message that the broker loses each time, *within* its first days."""
    sent, moved = 0, timedelta(0)
    while True:
        broker.flush_all()
        audit = audit_of(message)
        if audit.due_at is None or audit.due_at - audit.created_at > within:
            return sent
        clock.move(seconds=(audit.due_at - audit.created_at - moved).total_seconds())
        moved = audit.due_at - audit.created_at
        done = monitor.run_once()
        assert done.recovered + done.dead == 1
        sent += done.recovered


@pytest.mark.parity(4)
@pytest.mark.parity(26)
def test_a_message_that_is_lost_again_and_again_waits_1_8_27_64_125_minutes_more_each_time(
    stub_broker, stub_durable, declare, clock, monitor
):
    declare().send(42)
    for backoff in (1, 8, 27, 64, 125):
        stub_broker.flush_all()
        clock.move(minutes=10 + backoff, seconds=-5)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=6)  # with a second for what a busy machine makes of a monitor's clock
        assert monitor.run_once().recovered == 1


@pytest.mark.parity(31)
@pytest.mark.parametrize(("days", "expected"), [(1, 8), (7, 13), (30, 19)])
def test_a_message_that_is_always_lost_is_sent_again_8_13_19_times_in_a_day_week_month(
    stub_broker, stub_durable, declare, clock, audit_of, days, expected
):
    monitor = Monitor(stub_broker, expiration=NEVER)
    message = declare().send(42)
    within = timedelta(days=days)
    assert losses(stub_broker, monitor, clock, audit_of, message, within=within) == expected


@pytest.mark.parity(31)
def test_a_message_that_is_always_lost_is_sent_again_10_times_before_it_expires(
    stub_broker, stub_durable, declare, clock, monitor, audit_of
):
    message = declare().send(42)
    assert losses(stub_broker, monitor, clock, audit_of, message, within=NEVER) == 10
    assert audit_of(message).state == "dead"


@pytest.mark.parity(26)
def test_the_default_backoff_is_cubic_in_minutes_and_starts_at_one():
    assert [cubic_backoff(n) / timedelta(minutes=1) for n in (1, 2, 3, 4, 5)] == [1, 8, 27, 64, 125]
    with pytest.raises(ValueError, match="not 0"):
        cubic_backoff(0)


def test_any_other_backoff_may_take_its_place(
    stub_broker, stub_durable, declare, clock, monitor, audit_of
):
    counts = []

    def linear(enqueue_count):
        counts.append(enqueue_count)
        return enqueue_count * HOUR

    declare(backoff=linear).send(42)
    counts.clear()
    for hours in (1, 2, 3):
        stub_broker.flush_all()
        clock.move(hours=hours, minutes=9, seconds=55)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=6)  # it was sent a moment after it was marked
        assert monitor.run_once().recovered == 1
    assert counts == [2, 3, 4]


@pytest.mark.parity(6)
@pytest.mark.parametrize("level", ["middleware", "actor", "message"])
def test_the_job_timeout_of_the_message_precedes_the_actors_and_that_the_middlewares(
    stub_broker, sqlite_db, make_durable, ran, clock, monitor, level
):
    given = {"middleware": 20 * 60_000, "actor": timedelta(minutes=40), "message": 5 * 60_000}
    minutes = {"middleware": 20, "actor": 40, "message": 5}[level]
    levels = list(given)[: list(given).index(level) + 1]
    options: dict[str, Any] = {
        name: {"job_timeout": given[name]} if name in levels else {} for name in given
    }
    make_durable(stub_broker, sqlite_db, **options["middleware"])

    @durable_actor(**options["actor"])
    def charge(order_id):
        ran.append(order_id)

    charge.send_with_options(args=(42,), **options["message"])
    for backoff in (1, 8):
        stub_broker.flush_all()
        clock.move(minutes=minutes + backoff, seconds=-5)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=6)
        assert monitor.run_once().recovered == 1


@pytest.mark.parity(22)
@pytest.mark.failure(25)
def test_a_job_that_raised_until_its_retries_were_exhausted_runs_again_after_its_backoff(
    stub_broker, stub_durable, work, clock, monitor, audit_of
):
    runs = []

    @durable_actor(max_retries=2, min_backoff=1, max_backoff=1)
    def charge(order_id):
        runs.append(order_id)
        if len(runs) <= 6:
            raise RuntimeError("no luck")

    message = charge.send(42)
    for count, backoff in ((1, 1), (2, 8)):
        work()
        assert len(runs) == 3 * count
        audit = audit_of(message)
        assert (audit.state, audit.enqueue_count, audit.failure_count) == (
            "pending",
            count,
            3 * count,
        )
        assert audit.last_error == "RuntimeError: no luck"

        clock.move(minutes=backoff, seconds=-5)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=5)
        assert monitor.run_once().recovered == 1
    work()
    assert len(runs) == 7
    assert audit_of(message).state == "completed"


@pytest.mark.parity(22)
@pytest.mark.failure(25)
def test_a_job_that_keeps_raising_ends_dead_at_its_expiration(
    stub_broker, stub_durable, work, clock, monitor, audit_of
):
    @durable_actor(max_retries=0)
    def charge(order_id):
        raise RuntimeError("no luck")

    message = charge.send(42)
    while audit_of(message).state == "pending":
        work()
        clock.move(hours=6)
        monitor.run_once()
    audit = audit_of(message)
    assert audit.state == "dead"
    assert audit.finished_at - audit.scheduled_at >= 3 * DAY


@pytest.mark.parity(26)
def test_a_first_crash_is_recovered_at_the_end_of_the_lease_and_a_second_one_backoff_later(
    stub_broker, stub_durable, declare, ran, work, clock, monitor, audit_of, die_while_running
):
    message = declare().send(42)
    for crash, backoff in ((1, 0), (2, 8), (3, 27)):
        die_while_running(stub_durable, message)
        clock.move(minutes=backoff, seconds=35)
        assert monitor.run_once().recovered == 0
        clock.move(seconds=5)
        assert monitor.run_once().recovered == 1
        assert audit_of(message).crash_count == crash
    work()
    assert ran == [42]


@pytest.mark.parametrize(
    ("options", "lease"),
    [
        ({"heartbeat_interval": 5_000}, timedelta(seconds=20)),
        ({"heartbeat_interval": None}, timedelta(minutes=10)),
        ({"heartbeat_interval": None, "job_timeout": HOUR}, HOUR),
    ],
)
def test_the_lease_is_four_heartbeats_or_the_job_timeout_without_them(
    stub_broker, stub_durable, declare, clock, monitor, die_while_running, options, lease
):
    message = declare(**options).send(42)
    die_while_running(stub_durable, message)
    clock.move(seconds=lease.total_seconds() - 5)
    assert monitor.run_once().recovered == 0
    clock.move(seconds=5)
    assert monitor.run_once().recovered == 1


@pytest.mark.parity(25)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 500])
def test_one_pass_sends_all_that_is_stale_oldest_first(
    stub_broker, stub_durable, declare, ran, work, clock, watch, audits, batch_size
):
    charge = declare()
    order_ids = {}
    for order_id in (3, 1, 4, 2, 5):
        sent = charge.send_with_options(args=(order_id,), delay=timedelta(minutes=order_id))
        order_ids[sent.message_id] = order_id
    stub_broker.flush_all()
    clock.move(minutes=14, seconds=55)  # 4 and 5 are not stale yet, by a moment and a minute
    watcher = watch(stub_broker)
    assert Monitor(stub_broker, batch_size=batch_size).run_once().recovered == 3
    # A busy machine may make the second of two that are sent within a millisecond due before the first.
    found = sorted(audits(stub_durable), key=lambda audit: (audit.due_at, audit.id))
    due = [order_ids[audit.message_id] for audit in found]
    assert due[:2] == [4, 5]
    clock.move(hours=1)
    assert Monitor(stub_broker, batch_size=batch_size).run_once().recovered == 5
    assert [message.args[0] for message in watcher.enqueued] == [1, 2, 3, *due]
    work()
    assert sorted(ran) == [1, 2, 3, 4, 5]


@pytest.mark.parity(26)
def test_a_message_that_was_sent_again_is_not_stale_in_the_next_pass(
    stub_broker, stub_durable, declare, clock, monitor
):
    declare().send(42)
    clock.move(minutes=11)
    assert monitor.run_once().recovered == 1
    assert [monitor.run_once().recovered for _ in range(3)] == [0, 0, 0]
