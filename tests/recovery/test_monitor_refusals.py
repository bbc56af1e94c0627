"""A broker that refuses one message is not down: its next message tells."""

import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, Monitor, durable_actor
from dramatiq_durable.middleware import find_middleware


class Refusing(StubBroker):
    """Refuses the messages for which *refuses* says so as if it were down; it notes whom it was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.refuses = lambda order_id: False

    def enqueue(self, message, *, delay=None):
        [order_id] = message.args
        self.asked.append(order_id)
        if self.refuses(order_id):
            raise redis.ConnectionError("reset by peer")
        return super().enqueue(message, delay=delay)


def bad(order_id):
    return str(order_id).startswith("bad")


@pytest.fixture
def refusing(use, sqlite_db, make_durable):
    broker = use(Refusing())
    make_durable(broker, sqlite_db)
    return broker


@pytest.fixture
def charge(refusing, declare):
    return declare()


@pytest.fixture
def stale(refusing, charge, clock):
    """``stale("bad", 1, …)``: messages that the broker has lost, stale in this order; *refused* from now on."""

    def stale(*order_ids, refused=bad):
        refusing.refuses = lambda order_id: False
        sent = []
        for order_id in order_ids:
            sent.append(charge.send(order_id))
            clock.move(seconds=1)
        refusing.flush_all()
        del refusing.asked[:]
        refusing.refuses = refused
        clock.move(hours=1)
        return sent

    return stale


def counts(done):
    return done.recovered, done.failed, done.outage


@pytest.mark.failure(32)
@pytest.mark.parametrize(
    "order_ids", [("bad", 1), ("bad", 1, 2, 3), (1, "bad", 2), (1, 2, "bad", 3)]
)
def test_a_message_that_is_refused_while_the_next_is_taken_is_set_aside_until_its_backoff_is_over(
    refusing, stale, ran, work, clock, monitor, audit_of, order_ids
):
    message = stale(*order_ids)[order_ids.index("bad")]
    assert counts(monitor.run_once()) == (len(order_ids) - 1, 1, False)
    audit = audit_of(message)
    assert (audit.state, audit.enqueue_count) == ("pending", 2)
    assert "reset by peer" in audit.last_error
    work()
    assert sorted(ran) == [each for each in order_ids if each != "bad"]

    clock.move(minutes=7, seconds=50)
    del refusing.asked[:]
    assert not monitor.run_once()
    clock.move(seconds=10)
    refusing.refuses = lambda order_id: False
    assert counts(monitor.run_once()) == (1, 0, False)
    assert refusing.asked == ["bad"]


@pytest.mark.failure(33)
def test_a_message_that_is_refused_once_is_sent_in_the_same_pass_and_uses_up_no_backoff(
    refusing, stale, monitor, audit_of
):
    [message, _] = stale(1, 2, refused=lambda order_id: len(refusing.asked) == 1)
    assert counts(monitor.run_once()) == (2, 0, False)
    assert refusing.asked == [1, 2, 1]
    audit = audit_of(message)
    assert (audit.enqueue_count, audit.last_error) == (2, None)
    assert (audit.due_at - audit.enqueued_at).total_seconds() == (10 + 8) * 60


@pytest.mark.failure(33)
@pytest.mark.parametrize("taken", range(5))
def test_an_outage_that_begins_in_a_pass_uses_up_no_backoff_of_any_message(
    refusing, stale, clock, monitor, audit_of, taken
):
    sent = stale(*range(5), refused=lambda order_id: len(refusing.asked) > taken)
    assert counts(monitor.run_once()) == (taken, 0, True)
    assert len(refusing.asked) == 5
    left = [audit_of(each).enqueue_count for each in sent]
    assert left == [2] * taken + [1] * (5 - taken)
    clock.move(minutes=1)
    refusing.refuses = lambda order_id: False
    assert counts(monitor.run_once()) == (5 - taken, 0, False)


@pytest.mark.failure(32)
def test_many_bad_messages_before_a_good_one_look_like_an_outage_and_keep_it_back_one_a_pass(
    refusing, stale, ran, work, clock, monitor, audit_of
):
    bads = [f"bad {number}" for number in range(22)]
    sent = stale(*bads, 1)
    for asked in (20, 21, 22):
        assert counts(monitor.run_once()) == (0, 0, True)
        assert len(refusing.asked) == asked
    assert counts(monitor.run_once()) == (1, 0, False)
    work()
    assert ran == [1]
    assert {audit_of(each).state for each in sent[:-1]} == {"pending"}


@pytest.mark.failure(32)
def test_bad_messages_among_good_ones_keep_none_of_them_back(refusing, stale, ran, work, monitor):
    order_ids = [f"bad {number}" if number % 4 else number for number in range(100)]
    stale(*order_ids)
    done = monitor.run_once()
    assert (done.recovered, done.failed) == (25, 72)
    work()
    assert sorted(ran) == list(range(0, 100, 4))


@pytest.mark.failure(32)
@pytest.mark.parametrize("bads", [1, 5])
def test_bad_messages_end_dead_when_others_are_sent_beside_them(
    refusing, charge, clock, monitor, audit_of, stale, bads
):
    sent = stale(*(f"bad {number}" for number in range(bads)))
    for order_id in range(24):
        charge.send(order_id)
        refusing.flush_all()
        clock.move(hours=4)
        monitor.run_once()
    assert {audit_of(each).state for each in sent} == {"dead"}


@pytest.mark.failure(33)
def test_a_message_alone_cannot_be_told_from_an_outage_until_another_is_taken(
    refusing, stale, charge, clock, monitor, audit_of
):
    [message] = stale("bad")
    for _ in range(10):
        assert counts(monitor.run_once()) == (0, 0, True)
        assert audit_of(message).enqueue_count == 1
        clock.move(minutes=2)

    charge.send(1)
    refusing.flush_all()
    clock.move(hours=1)
    assert counts(monitor.run_once()) == (0, 0, True)  # one is tried, and it is the older one
    clock.move(minutes=2)
    assert counts(monitor.run_once()) == (1, 1, False)
    assert audit_of(message).enqueue_count == 2


@pytest.mark.failure(32)
def test_what_is_refused_in_two_passes_is_set_aside_when_another_was_taken_in_between(
    refusing, stale, charge, clock, audit_of
):
    monitor = Monitor(refusing, interval=60)
    [message] = stale("bad")
    assert counts(monitor.run_once()) == (0, 0, True)
    assert "reset by peer" in audit_of(message).last_error

    refusing.refuses = lambda order_id: True
    charge.send(1)  # due at once
    refusing.refuses = bad
    assert counts(monitor.run_once()) == (1, 0, False)

    clock.move(minutes=3)
    assert counts(monitor.run_once()) == (0, 1, False)
    assert audit_of(message).enqueue_count == 2


@pytest.mark.failure(32)
def test_a_message_of_another_table_tells_as_well(
    refusing, stale, sqlite_db, clock, monitor, audit_of
):
    class Own(Audit):
        class Meta:
            database = sqlite_db
            table_name = "own_audits"

    other = durable_actor(actor_name="other", audit_model=Own)(print)
    find_middleware(refusing).create_tables()
    other.send(1)
    [message] = stale("bad")
    assert counts(monitor.run_once()) == (1, 1, False)
    assert audit_of(message).enqueue_count == 2


@pytest.mark.failure(32)
def test_a_message_too_large_for_this_redis_does_not_keep_the_others_back(
    own_redis, use, sqlite_db, make_durable, declare, ran, work, clock, monitor, audit_of
):
    server = own_redis("--proto-max-bulk-len", str(2**20))
    broker = use(RedisBroker(url=server.url))
    make_durable(broker, sqlite_db)
    charge = declare()
    large = charge.send("x" * 2**21)
    for order_id in range(3):
        charge.send(order_id)
    broker.flush_all()
    clock.move(hours=1)
    assert counts(monitor.run_once()) == (3, 1, False)
    assert audit_of(large).last_error
    work()
    assert sorted(ran) == [0, 1, 2]
