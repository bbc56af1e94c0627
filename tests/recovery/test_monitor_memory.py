"""However many audits are stale and however large they are, one payload at a time is read."""

import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Monitor
from dramatiq_durable.middleware import find_middleware


@pytest.fixture
def payloads_read(sqlite_db):
    """How many payloads each SELECT reads."""
    read = []

    def note(event):
        if not event.sql.startswith("SELECT"):
            return
        sqlite_db.query_hooks.remove(note)
        with sqlite_db.connection_context():
            rows = sqlite_db.execute_sql(event.sql, event.params).fetchall()
        sqlite_db.query_hooks.append(note)
        read.append(sum(isinstance(value, bytes) for row in rows for value in row))

    sqlite_db.query_hooks.append(note)
    yield read
    sqlite_db.query_hooks.remove(note)


@pytest.fixture
def stale(declare, clock):
    """``stale(broker, count)``: messages that the broker has lost."""

    def stale(broker, count):
        charge = declare()
        sent = []
        for order_id in range(count):
            sent.append(charge.send(order_id))
            clock.move(seconds=1)
        broker.flush_all()
        clock.move(hours=1)
        return sent

    return stale


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_pass_never_reads_more_than_one_payload_at_a_time(
    stub_broker, stub_durable, stale, payloads_read, dry_run
):
    stale(stub_broker, 20)
    del payloads_read[:]
    assert Monitor(stub_broker, dry_run=dry_run).run_once().recovered == 20
    assert max(payloads_read) == 1
    assert sum(payloads_read) == 20


def test_what_is_given_up_reads_one_payload_at_a_time_too(
    stub_broker, stub_durable, stale, clock, monitor, payloads_read
):
    stale(stub_broker, 5)
    assert monitor.run_once().recovered == 5
    clock.move(days=4)
    del payloads_read[:]
    assert monitor.run_once().dead == 5
    assert max(payloads_read) == 1


class Meanwhile(StubBroker):
    """Lets something happen at its next push."""

    happens = None

    def enqueue(self, message, *, delay=None):
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return super().enqueue(message, delay=delay)


@pytest.fixture
def meanwhile(use, sqlite_db, make_durable):
    broker = use(Meanwhile())
    make_durable(broker, sqlite_db)
    return broker


def test_an_audit_that_is_cancelled_after_it_was_listed_is_left_alone(
    meanwhile, stale, monitor, ran, work, audit_of
):
    sent = stale(meanwhile, 3)
    store = find_middleware(meanwhile).store
    meanwhile.happens = lambda: list(store.cancel([sent[1].message_id]))
    assert monitor.run_once().recovered == 2
    assert audit_of(sent[1]).state == "cancelled"
    work()
    assert ran == [0, 2]


def test_audits_that_another_monitor_has_sent_after_they_were_listed_are_not_read_again(
    meanwhile, stale, monitor, ran, work, payloads_read
):
    stale(meanwhile, 5)
    other = []
    meanwhile.happens = lambda: other.append(Monitor(meanwhile).run_once().recovered)
    del payloads_read[:]
    assert (monitor.run_once().recovered, other) == (1, [4])
    assert sum(payloads_read) == 5
    work()
    assert sorted(ran) == list(range(5))
