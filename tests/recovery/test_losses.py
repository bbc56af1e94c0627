"""A monitor that runs notices what its broker has lost, and does not wait until each message is stale."""

from contextlib import ExitStack

import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import Monitor

from .conftest import running

pytestmark = pytest.mark.failure(35)

CANARY = "dramatiq:__durable_canary__"


def watched(*brokers):
    """A monitor of each of *brokers* runs, until the block ends."""
    return running(*[Monitor(broker, interval=0.02) for broker in brokers])


@pytest.fixture
def durable(redis_broker, sqlite_db, make_durable):
    return make_durable(redis_broker, sqlite_db)


@pytest.fixture
def settled(redis_broker, eventually):
    """``settled()``: a monitor has seen that Redis has what it must have."""

    def looks():
        return redis_broker.client.info("commandstats")["cmdstat_zrange"]["calls"]

    def wait():
        eventually(lambda: redis_broker.client.exists(CANARY))
        # It looks again when it has dealt with what it saw before.
        before = looks()
        eventually(lambda: looks() >= before + 2)

    return wait


@pytest.fixture
def queued(redis_broker):
    return lambda: redis_broker.client.llen("dramatiq:default")


@pytest.fixture
def counted(durable):
    """``counted()``: the enqueue_count of each audit."""
    return lambda: [audit.enqueue_count for audit in durable.store.list_audits()]


@pytest.mark.parametrize("monitors", [1, 3])
def test_what_a_wiped_redis_has_lost_is_sent_again_at_once_and_once(
    redis_broker, durable, declare, settled, eventually, counted, queued, work, ran, monitors
):
    charge = declare()
    for order_id in range(1_200):
        charge.send(order_id)
    with watched(*[redis_broker] * monitors):
        settled()
        assert counted() == [1] * 1_200
        redis_broker.client.flushdb()
        settled()
        eventually(lambda: queued() == 1_200)
    assert counted() == [2] * 1_200
    work(threads=4)
    assert sorted(ran) == list(range(1_200))


def test_what_was_lost_before_the_monitor_started_is_sent_again(
    redis_broker, durable, declare, settled, counted, queued
):
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    redis_broker.client.flushdb()
    charge.send(3)
    with watched(redis_broker):
        settled()
    assert queued() == 4
    assert counted() == [1, 2, 2, 2]


def test_a_redis_without_persistence_that_was_started_again_is_noticed(
    own_redis, use, sqlite_db, make_durable, declare, eventually
):
    server = own_redis()
    broker = use(RedisBroker(url=server.url))
    durable = make_durable(broker, sqlite_db)
    charge = declare()
    for order_id in range(5):
        charge.send(order_id)
    with watched(broker):
        eventually(lambda: broker.client.exists(CANARY))
        server.kill()
        server.start()
        eventually(lambda: broker.client.llen("dramatiq:default") == 5)
    assert [audit.enqueue_count for audit in durable.store.list_audits()] == [2] * 5


def test_a_redis_that_comes_back_with_an_old_snapshot_lacks_what_came_later(
    own_redis, use, sqlite_db, make_durable, declare, eventually
):
    server = own_redis()
    broker = use(RedisBroker(url=server.url))
    durable = make_durable(broker, sqlite_db)
    charge = declare()
    with watched(broker):
        charge.send("before")
        eventually(lambda: broker.client.exists(CANARY))
        broker.client.save()
        charge.send("after")
        server.kill()
        server.start()
        eventually(lambda: broker.client.llen("dramatiq:default") == 2)
    assert [audit.enqueue_count for audit in durable.store.list_audits()] == [2, 1]


def test_when_only_the_canary_is_gone_nothing_is_sent(
    redis_broker, durable, declare, settled, counted, queued
):
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    with watched(redis_broker):
        settled()
        redis_broker.client.delete(CANARY)
        settled()
    assert counted() == [1] * 3
    assert queued() == 3


def test_a_delayed_message_and_a_retry_that_were_lost_keep_their_time(
    redis_broker, durable, declare, settled, audit_of, work, eventually
):
    charge = declare()
    delayed = charge.send_with_options(args=(1,), delay=3_600_000)
    failed = charge.send(2)
    held = durable.store.claim(failed.message_id, 0, "c1", worker="w")
    retry_in = audit_of(delayed).scheduled_at - audit_of(delayed).created_at
    assert durable.store.release(held, "boom", retry_delay=retry_in, broker_message_id="b1")
    before = [
        audit_of(each).enqueued_at or audit_of(each).scheduled_at for each in (delayed, failed)
    ]
    redis_broker.client.flushdb()
    with watched(redis_broker):
        settled()
    client = redis_broker.client
    assert (client.llen("dramatiq:default"), client.llen("dramatiq:default.DQ")) == (0, 2)
    after = [audit_of(each) for each in (delayed, failed)]
    assert [audit.enqueue_count for audit in after] == [2, 2]
    assert after[0].enqueued_at == after[0].scheduled_at
    assert after[1].enqueued_at == before[1]


def test_what_has_no_copy_in_redis_waits_for_its_time(
    redis_broker, durable, declare, settled, audit_of
):
    charge = declare()
    released, running = charge.send(1), charge.send(2)
    held = durable.store.claim(released.message_id, 0, "c1", worker="w")
    assert durable.store.release(held, "boom")
    assert durable.store.claim(running.message_id, 0, "c2", worker="w")
    redis_broker.client.flushdb()
    before = [audit_of(each).due_at for each in (released, running)]
    with watched(redis_broker):
        settled()
    assert [audit_of(each).due_at for each in (released, running)] == before


def test_a_single_pass_sends_only_what_is_stale(redis_broker, durable, declare, counted):
    declare().send(1)
    redis_broker.flush_all()
    assert not Monitor(redis_broker).run_once()
    assert counted() == [1]


def test_a_dry_run_leaves_no_key_in_redis(redis_broker, durable, declare):
    declare().send(1)
    before = redis_broker.client.keys()
    Monitor(redis_broker, dry_run=True).run_once()
    assert redis_broker.client.keys() == before


def test_a_pass_with_nothing_to_do_is_one_round_trip_to_redis(redis_broker, durable, declare):
    declare().send(1)
    monitor = Monitor(redis_broker)
    for _ in range(2):
        monitor.run_once()
    asked = redis_broker.client.info("stats")["total_commands_processed"]
    monitor.run_once()
    # EXISTS, GET, INFO, ZRANGE; and the INFO that asked before.
    assert redis_broker.client.info("stats")["total_commands_processed"] - asked == 4 + 1


def test_what_a_dead_worker_has_fetched_is_sent_again(
    redis_url, use, sqlite_db, make_durable, declare, eventually, clock
):
    broker = use(RedisBroker(url=redis_url, heartbeat_timeout=300))
    durable = make_durable(broker, sqlite_db)
    charge = declare()
    for order_id in range(6):
        charge.send(order_id)
    dead, living = (RedisBroker(url=redis_url) for _ in range(2))
    with ExitStack() as stack:
        for worker in (dead, living):
            stack.callback(worker.close)
            assert next(worker.consume("default", prefetch=2)) is not None
        with watched(broker):

            def sent_again():
                living.do_fetch("other", 1)  # it beats
                return broker.client.llen("dramatiq:default") == 4

            eventually(sent_again)
            for _ in range(50):
                living.do_fetch("other", 1)
                assert broker.client.llen("dramatiq:default") == 4
        counts = [audit.enqueue_count for audit in durable.store.list_audits()]
        assert sorted(counts) == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("end", ["deleted", "purged"])
def test_a_queue_of_rabbitmq_that_was_emptied_is_noticed(
    rabbitmq_broker, sqlite_db, make_durable, declare, clock, eventually, work, ran, end
):
    durable = make_durable(rabbitmq_broker, sqlite_db)
    charge = declare()
    for order_id in range(20):
        charge.send(order_id)
    channel = rabbitmq_broker.connection.channel()
    if end == "deleted":
        channel.queue_delete("default")
    else:
        channel.queue_purge("default")
    clock.move(seconds=10)
    with watched(rabbitmq_broker):
        eventually(
            lambda: all(a.enqueue_count == 2 for a in durable.store.list_audits()), timeout=60
        )
    work()
    assert sorted(ran) == list(range(20))
    assert {audit.enqueue_count for audit in durable.store.list_audits()} == {2}


def test_what_the_consumers_of_rabbitmq_may_hold_is_not_taken_for_lost(
    rabbitmq_broker, sqlite_db, make_durable, declare, clock, eventually
):
    durable = make_durable(rabbitmq_broker, sqlite_db)
    charge = declare()
    for order_id in range(20):
        charge.send(order_id)
    consumer = rabbitmq_broker.consume("default", prefetch=20, timeout=100)
    assert next(consumer) is not None
    eventually(lambda: rabbitmq_broker.get_queue_message_counts("default")[0] == 0)
    clock.move(seconds=10)
    searches = []
    sqlite_db.query_hooks.append(
        lambda event: 'enqueued_at" IS NOT NULL' in event.sql and searches.append(event)
    )
    with watched(rabbitmq_broker):
        eventually(lambda: searches)
    consumer.close()
    assert [audit.enqueue_count for audit in durable.store.list_audits()] == [1] * 20
