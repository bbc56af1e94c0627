"""``current_audit().transaction()``: effects in the audit's database happen exactly once."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import peewee
import pytest
from dramatiq.middleware import AsyncIO

from dramatiq_durable import (
    LeaseLost,
    RequeueImmediately,
    current_audit,
    durable_actor,
)


class Order(peewee.Model):
    id = peewee.AutoField()
    total = peewee.IntegerField()


class NoLuck(Exception):
    pass


@pytest.fixture
def durable(stub_broker, db, make_durable):
    stub_broker.add_middleware(AsyncIO())
    return make_durable(stub_broker, db)


@pytest.fixture
def totals(db):
    """``totals()``: of the orders that are committed."""
    with Order.bind_ctx(db):
        db.create_tables([Order])
        db.close()

        def read():
            with db.connection_context():
                return [order.total for order in Order.select().order_by(Order.id)]

        yield read


only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_its_effects_and_the_completion_are_committed_together(
    durable, db, totals, ran, work, audit_of
):
    @durable_actor
    def charge(total):
        with current_audit().transaction() as database:
            ran.append(database is db)
            Order.create(total=total)
            ran.append(audit_of(message).state)
        ran.append(audit_of(message).state)

    message = charge.message(42)
    durable.broker.enqueue(message)
    work()
    assert ran == [True, "running", "completed"]
    assert totals() == [42]
    assert audit_of(message).state == "completed"


def test_an_exception_in_it_undoes_both(durable, totals, work, recover, audit_of):
    @durable_actor(max_retries=0)
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
            if len(starts) == 1:
                raise NoLuck

    starts = [1]
    message = charge.send(42)
    work()
    assert totals() == []
    audit = audit_of(message)
    assert (audit.state, audit.failure_count, audit.last_error) == ("pending", 1, "NoLuck: ")
    starts.append(2)
    recover(minutes=1)
    assert totals() == [42]
    assert audit_of(message).state == "completed"


def test_a_lost_lease_undoes_it(durable, totals, ran, work, audit_of, stub_broker):
    @durable_actor(max_retries=3, min_backoff=1)
    def charge(total):
        audit = current_audit()
        assert list(durable.store.cancel([audit.message_id])) == [1]
        try:
            with audit.transaction():
                ran.append("inside")
                Order.create(total=total)
        except LeaseLost:
            ran.append("lost")
            raise

    message = charge.send(42)
    work()
    assert ran == ["lost"]
    assert totals() == []
    assert audit_of(message).state == "cancelled"
    assert stub_broker.dead_letters == []


def test_of_two_that_run_at_once_one_has_effects(
    durable, totals, ran, gate, clock, monitor, running_worker, eventually, audit_of
):
    @durable_actor(heartbeat_interval=None)
    def charge():
        token = current_audit().token
        ran.append(token)
        if len(ran) == 1:
            gate.enter()
        with current_audit().transaction():
            Order.create(total=token)

    with running_worker(threads=2), gate:
        message = charge.send()
        gate.wait_for_body()
        clock.move(minutes=11)
        assert monitor.run_once().recovered == 1
        eventually(lambda: audit_of(message).state == "completed")
    first, second = ran
    assert first < second
    assert totals() == [second]


@only_sqlite
def test_it_happens_once_though_the_body_fails_after_it(
    durable, totals, ran, work, recover, stub_broker, audit_of
):
    @durable_actor(max_retries=3, min_backoff=1)
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
        ran.append("after it")
        raise NoLuck

    message = charge.send(42)
    work()
    recover(days=2)
    assert ran == ["after it"]
    assert totals() == [42]
    audit = audit_of(message)
    assert audit is None or audit.state == "completed"


@only_sqlite
def test_it_happens_once_though_the_body_asks_to_be_run_again_after_it(
    durable, totals, ran, work, recover, audit_of
):
    @durable_actor
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
        raise RequeueImmediately

    message = charge.send(42)
    work()
    recover(hours=1)
    assert totals() == [42]
    assert audit_of(message).state == "completed"


@only_sqlite
def test_a_job_that_asks_in_it_to_be_run_again_leaves_nothing_behind(
    durable, totals, ran, work, recover, audit_of
):
    @durable_actor
    def charge(total):
        ran.append("charge")
        with current_audit().transaction():
            Order.create(total=total)
            if len(ran) == 1:
                raise RequeueImmediately

    message = charge.send(42)
    work()
    assert totals() == []
    assert audit_of(message).requeue_count == 1
    recover(seconds=0)
    assert totals() == [42]
    assert audit_of(message).state == "completed"


@only_sqlite
@pytest.mark.parametrize("commits", [True, False])
def test_what_is_sent_in_it_is_sent_with_its_commit(durable, totals, ran, work, audits, commits):
    @durable_actor(max_retries=0)
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
            tell.send(total)
            assert ran == []
            if not commits:
                raise NoLuck

    @durable_actor
    def tell(total):
        ran.append((total, totals()))

    charge.send(42)
    work()
    states = sorted((audit.actor_name, audit.state) for audit in audits(durable))
    if commits:
        assert ran == [(42, [42])]
        assert states == [("charge", "completed"), ("tell", "completed")]
    else:
        assert ran == []
        assert states == [("charge", "pending")]


@only_sqlite
def test_a_heartbeat_in_it_does_nothing(durable, totals, work, audit_of):
    @durable_actor
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
            current_audit().heartbeat()
        current_audit().heartbeat()

    message = charge.send(42)
    work()
    assert totals() == [42]
    assert audit_of(message).state == "completed"


@only_sqlite
def test_it_leaves_the_connection_as_it_was(durable, db, totals, ran, work):
    @durable_actor
    def charge(total):
        with current_audit().transaction():
            Order.create(total=total)
        ran.append(db.is_closed())

    @durable_actor
    def ship(total):
        with db.connection_context():
            with current_audit().transaction():
                Order.create(total=total)
            ran.append(db.is_closed())

    charge.send(42)
    ship.send(43)
    work()
    assert ran == [True, False]
    assert totals() == [42, 43]


@only_sqlite
def test_a_coroutine_has_it_too(durable, totals, work, audit_of):
    @durable_actor
    async def charge(total):
        with current_audit().transaction():
            Order.create(total=total)

    message = charge.send(42)
    work()
    assert totals() == [42]
    assert audit_of(message).state == "completed"
