"""What monitors write of themselves, on each database."""

import uuid
from datetime import timedelta

import pytest

from dramatiq_durable.store import Monitors, Presented


@pytest.fixture
def monitors(store):
    monitors = Monitors(store)
    monitors.table.create()
    return monitors


@pytest.fixture
def one():
    """``one(host="a", …)``: a monitor."""

    def make(host="a", pid=1, **changes):
        interval = timedelta(seconds=1.5)
        return Presented(uuid.uuid4().hex, host, pid, "1.2.3", interval, **changes)

    return make


def named(monitors):
    return [str(seen) for seen in monitors.seen()]


def test_what_was_said_is_seen_with_its_age_by_the_clock_of_the_database(
    monitors, one, clock, rows
):
    monitor = one(recovered=3, dead=2, deleted=2**40, failed=1, outage=True)
    monitors.say(monitor, uptime=timedelta(minutes=5))
    clock.move(seconds=30)
    [seen] = monitors.seen()
    assert seen.monitor == monitor
    assert timedelta(seconds=30) <= seen.ago < timedelta(seconds=40)
    assert not seen.stopped
    started = rows.clock() - seen.started_at
    assert timedelta(minutes=5, seconds=30) <= started < timedelta(minutes=5, seconds=40)


def test_what_is_said_again_takes_the_place_of_what_was_said(monitors, one, clock):
    monitor = one()
    monitors.say(monitor, timedelta(0))
    [before] = monitors.seen()
    clock.move(minutes=1)
    monitor.recovered, monitor.outage = 7, True
    monitors.say(monitor, timedelta(minutes=1))
    [seen] = monitors.seen()
    assert (seen.monitor.recovered, seen.monitor.outage) == (7, True)
    assert seen.started_at == before.started_at
    assert seen.ago < timedelta(seconds=30)


def test_a_monitor_that_says_the_same_is_one_statement(monitors, one, statements):
    monitor = one()
    monitors.say(monitor, timedelta(0))
    statements.clear()
    monitors.say(monitor, timedelta(0))
    assert [event.sql.split()[0] for event in statements] == ["UPDATE"]


def test_one_that_has_stopped_is_still_seen_and_says_so(monitors, one, clock):
    first, second = one(pid=1), one(pid=2)
    for monitor in (first, second):
        monitors.say(monitor, timedelta(0))
        clock.move(minutes=1)
    monitors.stop(first)
    assert [(str(seen), seen.stopped) for seen in monitors.seen()] == [
        ("a:1", True),
        ("a:2", False),
    ]
    assert monitors.seen()[0].ago < timedelta(seconds=30)


def test_those_that_were_seen_last_come_first_and_each_namespace_has_its_own(
    monitors, one, clock, db, make_store
):
    other = Monitors(make_store(db, namespace="another"))
    for pid in (1, 2, 3):
        monitors.say(one(pid=pid), timedelta(0))
        clock.move(seconds=1)
    other.say(one(pid=4), timedelta(0))
    assert named(monitors) == ["a:3", "a:2", "a:1"]
    assert named(other) == ["a:4"]


def test_a_new_one_has_those_forgotten_that_are_long_gone_or_have_stopped_on_its_host(
    monitors, one, clock, db, make_store
):
    other = Monitors(make_store(db, namespace="another"))
    long_gone, alive = one(pid=1), one(pid=2)
    for monitor in (long_gone, alive):
        monitors.say(monitor, timedelta(0))
    other.say(one(pid=3), timedelta(0))
    clock.move(hours=23)
    monitors.say(alive, timedelta(0))
    killed, stopped, stopped_elsewhere = one(pid=4), one(pid=5), one(host="b", pid=6)
    for monitor in (killed, stopped, stopped_elsewhere):
        monitors.say(monitor, timedelta(0))
    for monitor in (stopped, stopped_elsewhere):
        monitors.stop(monitor)
    assert set(named(monitors)) == {"a:1", "a:2", "a:4", "a:5", "b:6"}
    clock.move(hours=2)
    monitors.say(one(pid=7), timedelta(0))
    assert set(named(monitors)) == {"a:2", "a:4", "b:6", "a:7"}
    assert named(other) == ["a:3"]


def test_one_that_was_forgotten_is_there_again_when_it_says_so(monitors, one, clock):
    monitor = one()
    monitors.say(monitor, timedelta(0))
    clock.move(days=2)
    monitors.say(one(pid=2), timedelta(0))
    assert named(monitors) == ["a:2"]
    monitors.say(monitor, timedelta(days=2))
    assert named(monitors) == ["a:1", "a:2"]
