"""A broker or a database that is down for a while: the monitor waits, uses nothing up, and goes on."""

import logging
import threading
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import NamedTuple

import dramatiq
import pytest
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from playhouse.db_url import connect

from dramatiq_durable import Monitor, recovery
from tests.support.proxy import Proxy


class Far(NamedTuple):
    broker: dramatiq.Broker
    proxy: Proxy


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq-confirm"])
def far(request, use):
    """An empty broker, and the network that leads to it."""
    kind = request.param.partition("-")[0]
    proxy = Proxy(request.getfixturevalue(f"{kind}_url"))
    if kind == "redis":
        yield Far(use(RedisBroker(url=proxy.url)), proxy)
    else:
        confirm = "confirm" in request.param
        yield Far(use(RabbitmqBroker(url=proxy.url, confirm_delivery=confirm)), proxy)
    proxy.close()


@contextmanager
def in_a_thread(monitor):
    """*monitor*'s ``run()``, until the block ends."""
    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        yield thread
    finally:
        monitor.stop()
        thread.join(timeout=30)
    assert not thread.is_alive()


OUTAGES = [
    dramatiq.errors.ConnectionClosed("closed"),
    dramatiq.errors.ConnectionFailed("failed"),
    redis.ConnectionError("refused"),
    redis.TimeoutError("silence"),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'"),
    redis.exceptions.BusyLoadingError("loading"),
    redis.exceptions.ReadOnlyError("a replica"),
    ConnectionRefusedError(111, "refused"),
    TimeoutError("silence"),
]


@pytest.mark.failure(3)
@pytest.mark.failure(33)
@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_an_outage_of_the_broker_uses_up_no_backoff_and_then_all_is_sent(
    switchable, sqlite_db, make_durable, declare, ran, work, clock, monitor, audits, error
):
    durable = make_durable(switchable, sqlite_db)
    charge = declare()
    for order_id in range(5):
        charge.send(order_id)
    switchable.flush_all()
    clock.move(hours=1)

    switchable.error = error
    for _ in range(12):
        done = monitor.run_once()
        assert done.outage
        assert (done.recovered, done.failed, done.dead) == (0, 0, 0)
        assert {(audit.state, audit.enqueue_count) for audit in audits(durable)} == {("pending", 1)}
        clock.move(hours=2)

    switchable.error = None
    done = monitor.run_once()
    assert (done.recovered, done.failed, done.outage) == (5, 0, False)
    assert {audit.enqueue_count for audit in audits(durable)} == {2}
    work()
    assert sorted(ran) == list(range(5))


@pytest.mark.failure(3)
@pytest.mark.failure(33)
def test_what_was_sent_while_a_real_broker_was_down_and_before_it_is_sent_when_it_is_back(
    far, sqlite_db, make_durable, declare, ran, work, clock, monitor, audit_of
):
    make_durable(far.broker, sqlite_db)
    charge = declare()
    before = charge.send("before")
    far.broker.flush_all()
    far.proxy.down()
    during = charge.send("during")
    clock.move(hours=1)
    done = monitor.run_once()
    assert (done.outage, done.recovered, done.failed) == (True, 0, 0)
    assert (audit_of(before).enqueue_count, audit_of(during).enqueue_count) == (1, 0)

    far.proxy.up()
    clock.move(minutes=1)
    assert monitor.run_once().recovered == 2
    assert (audit_of(before).enqueue_count, audit_of(during).enqueue_count) == (2, 1)
    work()
    assert sorted(ran) == ["before", "during"]


@pytest.mark.failure(33)
def test_a_pass_tries_twenty_messages_at_a_broker_that_is_down(
    switchable, sqlite_db, make_durable, declare, clock, monitor
):
    make_durable(switchable, sqlite_db)
    charge = declare()
    for order_id in range(50):
        charge.send(order_id)
    clock.move(hours=1)
    switchable.error = ConnectionRefusedError()
    switchable.attempts = 0
    assert monitor.run_once().outage
    assert switchable.attempts == 20


@pytest.mark.failure(33)
def test_a_rabbitmq_that_says_nothing_is_not_waited_for_with_each_message_of_many(
    rabbitmq_url, use, sqlite_db, make_durable, declare, monitor, monkeypatch
):
    monkeypatch.setattr(recovery, "REFUSAL_SECONDS", 0.0)
    with closing(Proxy(rabbitmq_url)) as proxy:
        url = f"{proxy.url}?socket_timeout=0.2&stack_timeout=0.2"
        make_durable(use(RabbitmqBroker(url=url, confirm_delivery=True)), sqlite_db)
        proxy.hold_replies("AMQP", until="for ever")
        declare().send_many((n,) for n in range(60))
        assert proxy.accepted == 2  # for those that go together, and for one alone
        assert monitor.run_once().outage
        assert proxy.accepted == 5  # and for the monitor to ask how many wait, too


@pytest.mark.failure(33)
def test_the_pause_grows_with_the_outage_up_to_ten_seconds_and_is_short_again_after_it(
    switchable, sqlite_db, make_durable, declare, clock, audit_of
):
    make_durable(switchable, sqlite_db)
    message = declare().send(42)
    clock.move(hours=1)
    moved = timedelta(hours=1)
    monitor = Monitor(switchable, interval=1.0)

    def wait_after_a_pass():
        nonlocal moved
        assert monitor.run_once().outage
        audit = audit_of(message)
        wait = audit.due_at - (audit.created_at + moved)
        clock.move(hours=1)
        moved += timedelta(hours=1)
        return wait

    switchable.error = ConnectionRefusedError()
    waits = [wait_after_a_pass() for _ in range(10)]
    assert waits[:6] == sorted(waits[:6])
    assert waits[0] < timedelta(seconds=5)
    assert timedelta(seconds=10) <= waits[-1] < timedelta(seconds=15)

    switchable.error = None
    assert monitor.run_once().recovered == 1
    clock.move(hours=1)
    moved += timedelta(hours=1)
    switchable.error = ConnectionRefusedError()
    assert wait_after_a_pass() < timedelta(seconds=5)


@pytest.mark.failure(33)
def test_an_outage_is_logged_once(
    switchable, sqlite_db, make_durable, declare, clock, monitor, caplog
):
    make_durable(switchable, sqlite_db)
    declare().send(42)
    clock.move(hours=1)
    switchable.error = ConnectionRefusedError()
    for _ in range(3):
        monitor.run_once()
        clock.move(minutes=2)
    [record] = [r for r in caplog.records if r.name.startswith("dramatiq_durable")]
    assert record.levelno == logging.WARNING


@pytest.mark.failure(21)
@pytest.mark.failure(4)
def test_a_monitor_survives_an_outage_of_its_database(
    own_postgres, stub_broker, make_durable, declare, ran, work, clock, eventually, caplog
):
    server = own_postgres()
    db = connect(server.url)
    make_durable(stub_broker, db)
    charge = declare()
    charge.send(42)
    stub_broker.flush_all()

    with in_a_thread(Monitor(stub_broker, interval=0.01)) as thread:
        server.stop()
        eventually(lambda: "does not answer" in caplog.text)
        server.start()
        clock.move(minutes=11)
        eventually(lambda: stub_broker.queues["default"].qsize() == 1)
        server.kill()
        server.start()
        charge.send(43)
        stub_broker.flush_all()
        clock.move(hours=1)
        eventually(lambda: stub_broker.queues["default"].qsize() == 2)
        assert thread.is_alive()
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]
    work()
    assert sorted(ran) == [42, 43]


def test_a_monitor_started_before_its_database_waits_for_it(
    own_postgres, stub_broker, make_durable, declare, ran, work, clock, eventually, caplog
):
    server = own_postgres()
    make_durable(stub_broker, connect(server.url))
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    server.stop()
    with in_a_thread(Monitor(stub_broker, interval=0.01)):
        eventually(lambda: "does not answer" in caplog.text)
        server.start()
        eventually(lambda: stub_broker.queues["default"].qsize() == 1)
    work()
    assert ran == [42]
