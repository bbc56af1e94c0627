"""Any number of monitors: one push per due period, and no write that comes too late."""

import random
import threading
from contextlib import contextmanager
from datetime import timedelta

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware, Monitor, durable_actor

APP = """
import datetime, os
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq_durable import DurableMiddleware, durable_actor

broker = RedisBroker(url=os.environ["BROKER_URL"])
durable = DurableMiddleware()
broker.add_middleware(durable)
dramatiq.set_broker(broker)


def backoff(enqueue_count):
    return datetime.timedelta(seconds=0.5 if enqueue_count < 3 else 3600)


@durable_actor(job_timeout=500, heartbeat_interval=100, backoff=backoff)
def charge(order_id):
    pass
"""


@pytest.fixture
def deploy(use, database_url, make_durable):
    """``deploy(broker=None)``: one more process, so to speak: a broker, its middleware, its database."""
    databases = []

    def deploy(broker=None):
        broker = use(broker or StubBroker())
        databases.append(connect(database_url))
        make_durable(broker, databases[-1])
        return broker

    yield deploy
    for database in databases:
        database.close()


@contextmanager
def in_thread(target):
    thread = threading.Thread(target=target)
    thread.start()
    yield
    thread.join(timeout=60)
    assert not thread.is_alive()


def at_once(functions):
    """Call *functions* in threads that start together, and return their results."""
    barrier = threading.Barrier(len(functions))
    results = []

    def call(function):
        barrier.wait(30)
        results.append(function())

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == len(functions)
    return results


def row_of(broker, message):
    audit = broker.middleware[-1].store.get(message.message_id)
    return dict(audit.__data__)


@pytest.mark.failure(30)
@pytest.mark.parity(30)
@pytest.mark.parametrize("batch_size", [3, 500])
def test_each_due_period_has_one_push_however_many_monitors_there_are(
    deploy, declare, clock, batch_size
):
    brokers = [deploy() for _ in range(4)]
    dramatiq.set_broker(brokers[0])
    charge = declare()
    for order_id in range(20):
        charge.send(order_id)
    for broker in brokers[1:]:
        broker.declare_queue("default")
    monitors = [Monitor(broker, batch_size=batch_size) for broker in brokers]
    for _ in range(3):
        for broker in brokers:
            broker.flush_all()
        clock.move(hours=2)
        passes = at_once([monitor.run_once for monitor in monitors])
        assert sum(done.recovered for done in passes) == 20
        assert sum(done.failed for done in passes) == 0
        assert sum(broker.queues["default"].qsize() for broker in brokers) == 20
    audits = brokers[0].middleware[-1].store.list_audits()
    assert {audit.enqueue_count for audit in audits} == {4}


def test_a_monitor_that_meets_another_goes_on_where_that_one_will_not_be_next(
    deploy, redis_url, declare, clock, watch
):
    random.seed(42)
    here, other = (deploy(RedisBroker(url=redis_url)) for _ in range(2))
    dramatiq.set_broker(here)
    charge = declare()
    for order_id in range(300):
        charge.send(order_id)
    other.declare_queue("default")
    here.flush_all()
    clock.move(hours=1)
    mine, others = watch(here), watch(other)

    class Meanwhile(dramatiq.Middleware):
        """When this monitor sends its first messages, the other one takes what would be next, and stops."""

        def before_enqueue(self, broker, message, delay):
            if not others.enqueued:
                brief = Monitor(other, batch_size=50)
                brief.stop()
                assert brief.run_once().recovered == 50

    here.add_middleware(Meanwhile())
    assert Monitor(here).run_once().recovered == 250
    [met, *_] = [message.args[0] for message in others.enqueued]
    sent = [message.args[0] for message in mine.enqueued]
    assert sent[:met] == list(range(met))
    after = sent[met:]
    assert sorted(after) == list(range(met + 50, 300))
    assert after != sorted(after)
    assert here.client.llen("dramatiq:default") == 300


@pytest.mark.failure(30)
@pytest.mark.parity(30)
def test_three_monitor_processes_send_each_stale_message_once_per_due_period(
    app, redis_url, database_url, eventually
):
    durable = DurableMiddleware(database_url)
    durable.create_tables()
    ours = app(APP, BROKER_URL=redis_url, DRAMATIQ_DURABLE_DATABASE_URL=database_url)
    monitors = [ours.monitor("--interval", "0.05", "--batch-size", "20") for _ in range(3)]
    for monitor in monitors:
        monitor.wait_for("Monitoring")
    sent = ours.python("import app\nfor i in range(100): app.charge.send(i)")
    assert sent.returncode == 0, sent.stderr
    client = redis.Redis.from_url(redis_url)
    for _ in range(2):
        eventually(lambda: client.llen("dramatiq:default") >= 100)
        client.delete("dramatiq:default", "dramatiq:default.msgs")
    eventually(lambda: client.llen("dramatiq:default") >= 100)
    for monitor in monitors:
        monitor.terminate()
    assert [monitor.wait() for monitor in monitors] == [0, 0, 0]
    assert client.llen("dramatiq:default") == 100
    client.close()
    assert [audit.enqueue_count for audit in durable.store.list_audits()] == [3] * 100
    durable.store.connections.close()


@pytest.mark.failure(30)
@pytest.mark.parametrize("late", ["sent", "outage", "refused"])
def test_what_a_slow_monitor_writes_after_anothers_mark_is_refused(
    deploy, gate, declare, clock, late
):
    slow, quick = deploy(gate), deploy()
    quick.declare_queue("default")
    dramatiq.set_broker(slow)
    message = declare().send(42)
    slow.flush_all()
    clock.move(hours=1)

    slow.opened.clear()
    slow.reached.clear()
    slow.error = {"sent": None, "outage": ConnectionRefusedError(), "refused": ValueError()}[late]
    with in_thread(Monitor(slow).run_once):
        assert slow.reached.wait(30)
        assert Monitor(quick).run_once().recovered == 0
        clock.move(seconds=65)  # a push lease, and a moment
        assert Monitor(quick).run_once().recovered == 1
        before = row_of(quick, message)
        slow.opened.set()
    assert row_of(quick, message) == before
    assert before["enqueue_count"] == 3
    assert before["due_at"] - before["enqueued_at"] == timedelta(minutes=10 + 27)


@pytest.mark.failure(30)
def test_a_worker_that_is_faster_than_the_confirm_keeps_its_lease(deploy, declare, clock):
    class Eager(dramatiq.Middleware):
        """A worker that claims the job before the monitor has had the broker's answer."""

        def after_enqueue(self, broker, message, delay):
            epoch = message.options["durable_epoch"]
            assert durable.store.claim(message.message_id, epoch, "eager", worker="eager")

    broker = deploy()
    durable = broker.middleware[-1]
    message = declare().send(42)
    broker.flush_all()
    clock.move(hours=1)
    broker.add_middleware(Eager())
    assert Monitor(broker).run_once().recovered == 1
    audit = durable.store.get(message.message_id)
    assert (audit.state, audit.claim_id) == ("running", "eager")
    assert audit.due_at - audit.started_at == timedelta(seconds=40)


class Killed(BaseException):
    """What ends a monitor in the middle of a pass."""


@pytest.mark.failure(31)
@pytest.mark.parametrize("moment", ["before_enqueue", "after_enqueue"])
def test_what_a_monitor_has_marked_when_it_dies_is_sent_after_a_push_lease(
    deploy, declare, ran, clock, work, moment
):
    class Death(dramatiq.Middleware):
        pass

    def die(self, broker, message, delay):
        raise Killed

    setattr(Death, moment, die)
    dying, other = deploy(), deploy()
    charge = declare()  # on the other broker, which has the workers
    dying.declare_queue("default")
    for order_id in range(3):
        charge.send(order_id)
    other.flush_all()
    clock.move(hours=1)
    dying.add_middleware(Death())
    with pytest.raises(Killed):
        Monitor(dying).run_once()

    monitor = Monitor(other)
    assert monitor.run_once().recovered == 2
    clock.move(seconds=55)
    assert monitor.run_once().recovered == 0
    clock.move(seconds=10)
    assert monitor.run_once().recovered == 1
    work(other)
    assert sorted(ran) == [0, 1, 2]


@pytest.mark.failure(30)
def test_any_number_of_monitors_deletes_each_audit_once(deploy, clock, work):
    brokers = [deploy() for _ in range(3)]

    @durable_actor
    def note():
        pass

    for _ in range(10):
        note.send()
    work()
    clock.move(days=1)
    passes = at_once([Monitor(broker, batch_size=2).run_once for broker in brokers])
    assert sum(done.deleted for done in passes) == 10
    assert brokers[0].middleware[-1].store.list_audits() == []
