"""A message that still waits in the broker is not sent again, however long it waits; one that is lost is."""

import uuid

import dramatiq
import pytest

from dramatiq_durable import Monitor

from .unknown import UnknownBroker

TIMEOUT = {"minutes": 11}  # of a message, with its first backoff


@pytest.fixture
def take(make_durable):
    """``take(durable, count)``: a worker that completes the next *count* copies of the queue, if they are to be run."""

    def next_of(broker, count):
        if isinstance(broker, UnknownBroker):
            return [dramatiq.Message.decode(broker.line.popleft()) for _ in range(count)]
        consumer = broker.consume("default", prefetch=1, timeout=5_000)
        got = []
        while len(got) < count:
            proxy = next(consumer)
            if proxy is not None:
                consumer.ack(proxy)
                got.append(proxy._message)
        consumer.close()
        return got

    def take(durable, count=1):
        ran = []
        for message in next_of(durable.broker, count):
            options = message.options
            held = durable.store.claim(
                message.message_id,
                options["durable_epoch"],
                uuid.uuid4().hex,
                worker="tests",
                enqueued_at=options.get("durable_enqueued_at"),
            )
            if held is not None:
                assert durable.store.complete([held]) == set()
                ran.append(message.args[0])
        return ran

    return take


@pytest.fixture
def sent(clock):
    """``sent(charge, *order_ids)``: a minute between each two."""

    def send(charge, *order_ids):
        for order_id in order_ids:
            charge.send(order_id)
            clock.move(minutes=1)

    return send


def counts(done):
    return done.recovered, done.held


# Redis knows each message.


@pytest.mark.failure(36)
@pytest.mark.parity(32)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_redis_still_has_is_not_sent_again(broker, durable, declare, clock, monitor, audits):
    charge = declare()
    for order_id in range(10):
        charge.send(order_id)
    held = 0
    for _ in range(20):
        clock.move(minutes=5, seconds=30)
        done = monitor.run_once()
        assert done.recovered == 0
        held += done.held
    assert held >= 10 * 10
    assert {audit.enqueue_count for audit in audits(durable)} == {1}
    assert broker.client.llen("dramatiq:default") == 10


@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_of_those_that_wait_the_one_that_redis_has_lost_is_sent_again(
    broker, durable, declare, clock, monitor, audits
):
    charge = declare()
    for order_id in range(10):
        charge.send(order_id)
    lost = audits(durable)[4]
    broker.client.hdel("dramatiq:default.msgs", lost.broker_message_id)
    clock.move(**TIMEOUT)
    assert counts(monitor.run_once()) == (1, 9)
    assert durable.store.get(lost.message_id).enqueue_count == 2


@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_body_that_nobody_will_deliver_holds_its_audit_back_for_twelve_timeouts(
    broker, durable, declare, clock, monitor
):
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    broker.client.delete("dramatiq:default")  # the ids, and not the bodies
    clock.move(minutes=119)
    assert counts(monitor.run_once()) == (0, 3)
    clock.move(minutes=1)
    assert counts(monitor.run_once()) == (1, 2)
    clock.move(minutes=9)
    assert counts(monitor.run_once()) == (0, 2)
    clock.move(minutes=1)
    assert counts(monitor.run_once()) == (1, 1)  # again one, as long as nobody claims the first


@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_body_is_stranded_when_what_was_sent_a_timeout_later_has_run(
    broker, durable, declare, clock, monitor, take
):
    charge = declare()
    charge.send("stranded")
    broker.client.delete("dramatiq:default")
    clock.move(**TIMEOUT)
    charge.send(2)
    assert take(durable) == [2]
    assert counts(monitor.run_once()) == (1, 0)
    assert take(durable) == ["stranded"]


@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_a_worker_has_fetched_and_does_not_begin_is_sent_again_when_it_is_stale(
    broker, durable, declare, clock, monitor
):
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    assert next(broker.consume("default", prefetch=1)) is not None
    clock.move(minutes=10)
    assert counts(monitor.run_once()) == (0, 0)
    clock.move(minutes=1)
    assert counts(monitor.run_once()) == (1, 2)


@pytest.mark.failure(8)
@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_delayed_messages_that_nobody_moves_are_sent_again_one_in_a_timeout_to_their_queue(
    broker, durable, declare, clock, monitor
):
    charge = declare()
    for order_id in range(3):
        charge.send_with_options(args=(order_id,), delay=1_000)
    clock.move(seconds=1, **TIMEOUT)
    assert counts(monitor.run_once()) == (1, 2)
    assert broker.client.llen("dramatiq:default") == 1
    clock.move(minutes=9)
    assert counts(monitor.run_once()) == (0, 2)
    clock.move(minutes=2)
    assert counts(monitor.run_once()) == (1, 1)
    assert broker.client.llen("dramatiq:default") == 2


@pytest.mark.failure(8)
@pytest.mark.failure(36)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_delayed_message_is_sent_again_when_what_was_sent_a_timeout_after_it_was_due_has_run(
    broker, durable, declare, clock, monitor, take
):
    charge = declare()
    charge.send_with_options(args=("delayed",), delay=1_000)
    charge.send(1)
    assert take(durable) == [1]
    clock.move(seconds=1, **TIMEOUT)
    charge.send(2)
    assert take(durable) == [2]
    assert counts(monitor.run_once()) == (1, 0)
    assert take(durable) == ["delayed"]


# Other brokers have their order.


@pytest.mark.failure(36)
@pytest.mark.parametrize("kind", ["unknown", "rabbitmq"])
def test_as_long_as_a_queue_moves_what_it_has_not_come_to_is_not_sent_again(
    request, kind, sqlite_db, make_durable, declare, clock, sent, take
):
    broker = request.getfixturevalue(kind)
    durable = make_durable(broker, sqlite_db)
    sent(declare(), *range(40))
    monitor = Monitor(broker)
    for number in range(40):
        assert take(durable) == [number]
        assert monitor.run_once().recovered == 0
        clock.move(minutes=5)
    assert {audit.enqueue_count for audit in durable.store.list_audits()} == {1}


@pytest.mark.failure(36)
@pytest.mark.parametrize("batch_size", [2, 500])
def test_what_a_queue_has_passed_is_lost_and_is_sent_again(
    unknown, sqlite_db, make_durable, declare, clock, sent, take, batch_size
):
    durable = make_durable(unknown, sqlite_db)
    sent(declare(), *range(20))
    del unknown.line[7], unknown.line[3]
    clock.move(minutes=1)
    monitor = Monitor(unknown, batch_size=batch_size)
    assert take(durable) == [0]
    assert counts(monitor.run_once())[0] == 0
    assert take(durable, 4) == [1, 2, 4, 5]
    clock.move(minutes=2)
    assert monitor.run_once().recovered == 1
    assert take(durable, 13) == [6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    clock.move(minutes=2)
    assert monitor.run_once().recovered == 1
    assert take(durable, 2) == [3, 7]
    assert {audit.state for audit in durable.store.list_audits()} == {"completed"}


@pytest.mark.failure(36)
@pytest.mark.parametrize("kind", ["unknown", "rabbitmq"])
def test_where_nobody_consumes_one_message_is_sent_again_in_a_timeout(
    request, kind, sqlite_db, make_durable, declare, clock, sent, take
):
    broker = request.getfixturevalue(kind)
    durable = make_durable(broker, sqlite_db)
    charge = declare()
    sent(charge, "before")
    assert take(durable) == ["before"]
    clock.move(hours=1)
    sent(charge, *range(100))
    monitor = Monitor(broker)
    recovered = 0
    for _ in range(200):  # 100 minutes
        clock.move(seconds=30)
        recovered += monitor.run_once().recovered
    assert 8 <= recovered <= 20

    # And when they are back, each job runs once, and the queue is worked off with few sends more.
    ran = []
    while len(ran) < 100:
        ran += take(durable)
        clock.move(seconds=10)
        recovered += monitor.run_once().recovered
    assert sorted(ran) == list(range(100))
    assert recovered <= 25


@pytest.mark.failure(36)
def test_when_all_is_lost_the_first_to_be_sent_again_and_claimed_brings_back_the_others(
    unknown, sqlite_db, make_durable, declare, clock, sent, take
):
    durable = make_durable(unknown, sqlite_db)
    charge = declare()
    sent(charge, "before")
    assert take(durable) == ["before"]
    clock.move(hours=1)
    for order_id in range(10):
        charge.send(order_id)
    unknown.line.clear()
    clock.move(**TIMEOUT)
    monitor = Monitor(unknown)
    assert counts(monitor.run_once()) == (1, 9)
    assert take(durable) == [0]
    clock.move(minutes=1)
    assert counts(monitor.run_once()) == (9, 0)
    assert take(durable, 9) == list(range(1, 10))


def test_where_nothing_was_ever_claimed_all_that_is_stale_is_sent_again(
    unknown, sqlite_db, make_durable, declare, clock
):
    make_durable(unknown, sqlite_db)
    charge = declare()
    for order_id in range(10):
        charge.send(order_id)
    clock.move(**TIMEOUT)
    assert counts(Monitor(unknown).run_once()) == (10, 0)


@pytest.mark.failure(36)
def test_what_has_no_copy_in_the_broker_is_never_held(
    unknown, sqlite_db, make_durable, declare, clock, sent, take
):
    durable = make_durable(unknown, sqlite_db)
    charge = declare()
    sent(charge, "before")
    assert take(durable) == ["before"]
    released, requeued, retried = (charge.send(number).message_id for number in range(3))
    store = durable.store
    claim = {each: store.claim(each, 0, each, worker="w") for each in (released, requeued)}
    assert store.release(claim[released], "boom")
    assert store.requeue(claim[requeued])
    assert list(store.cancel([retried])) == [1]
    assert list(store.retry([retried])) == [1]
    charge.send("waits")
    clock.move(minutes=5)
    assert counts(Monitor(unknown).run_once()) == (3, 0)


@pytest.mark.failure(30)
@pytest.mark.failure(36)
def test_a_held_audit_is_neither_counted_nor_expired_and_is_looked_at_again_in_a_tenth_of_its_timeout(
    unknown, sqlite_db, make_durable, declare, clock, sent, take
):
    durable = make_durable(unknown, sqlite_db, expiration=1_200_000)
    charge = declare()
    sent(charge, "first", "second")
    clock.move(minutes=60)
    assert take(durable) == ["first"]
    monitors = [Monitor(unknown) for _ in range(3)]
    assert [counts(each.run_once()) for each in monitors] == [(0, 1), (0, 0), (0, 0)]
    [second] = [a for a in durable.store.list_audits() if a.state == "pending"]
    clock.move(seconds=59)
    assert counts(monitors[0].run_once()) == (0, 0)
    clock.move(seconds=1)
    assert counts(monitors[0].run_once()) == (0, 1)
    [again] = [a for a in durable.store.list_audits() if a.state == "pending"]
    for name in ("enqueue_count", "enqueued_at", "backoff", "epoch", "crash_count"):
        assert getattr(again, name) == getattr(second, name)
    assert again.enqueue_count == 1
