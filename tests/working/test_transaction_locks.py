"""While ``transaction()`` is open it locks its own audit, and the others go on.

Not on SQLite, where a write transaction locks the whole database.
"""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

from datetime import timedelta

import pytest

from dramatiq_durable import current_audit, durable_actor

pytestmark = pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)

BEAT = timedelta(milliseconds=50)


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def charge(durable, gate):
    """An actor that stays in its transaction until the gate opens."""

    @durable_actor(heartbeat_interval=None)
    def charge():
        with current_audit().transaction():
            gate.enter()

    return charge


@pytest.fixture
def ship(durable, ran):
    @durable_actor(queue_name="shipping")
    def ship():
        ran.append("ship")

    return ship


def test_messages_are_sent(charge, ship, stub_broker, gate, running_worker, audit_of):
    with running_worker(threads=1), gate:
        stub_broker.enqueue(charge.message().copy(message_id="5"))
        gate.wait_for_body()
        # The neighbours in the index, on both sides.
        for message_id in ("1", "9"):
            message = stub_broker.enqueue(ship.message().copy(message_id=message_id))
            assert audit_of(message) is not None


def test_other_jobs_run(charge, ship, stub_broker, ran, gate, running_worker, eventually, audit_of):
    messages = [ship.message().copy(message_id=message_id) for message_id in ("1", "9")]
    for message in messages:
        stub_broker.enqueue(message)
    charged = charge.message().copy(message_id="5")
    stub_broker.enqueue(charged)
    with running_worker(threads=2), gate:
        gate.wait_for_body()
        eventually(lambda: all(audit_of(m).state == "completed" for m in messages))
        assert audit_of(charged).state == "running"
    assert audit_of(charged).state == "completed"


def test_a_monitor_passes_by_the_locked_audit(
    charge, ship, stub_broker, ran, gate, clock, monitor, running_worker, audit_of
):
    charged, lost = charge.send(), ship.send()
    stub_broker.flush("shipping")
    with running_worker(threads=1), gate:
        gate.wait_for_body()
        clock.move(hours=1)
        assert monitor.run_once().recovered == 1
        assert audit_of(lost).enqueue_count == 2
    audit = audit_of(charged)
    assert (audit.state, audit.enqueue_count) == ("completed", 1)


def test_the_leases_of_other_jobs_are_renewed(
    durable, gate, running_worker, eventually, audit_of, errors_logged
):
    @durable_actor(heartbeat_interval=BEAT)
    def charge():
        with current_audit().transaction():
            gate.enter()

    @durable_actor(heartbeat_interval=BEAT)
    def ship():
        gate.enter()

    with running_worker(threads=2), gate:
        charged, shipped = charge.send(), ship.send()
        gate.wait_for_body()
        gate.wait_for_body()
        started = audit_of(shipped)
        locked_until = audit_of(charged).due_at
        eventually(lambda: audit_of(shipped).due_at > started.due_at + 3 * BEAT)
        assert audit_of(charged).due_at == locked_until
    assert audit_of(charged).state == audit_of(shipped).state == "completed"
    assert errors_logged() == []


def test_the_lease_of_one_audit_that_an_operator_locks_is_the_only_one_that_is_not_renewed(
    durable, db, gate, running_worker, eventually, audit_of
):
    @durable_actor(heartbeat_interval=1_000)
    def charge():
        gate.enter()

    with running_worker(threads=2), gate:
        locked, other = charge.send(), charge.send()
        gate.wait_for_body()
        gate.wait_for_body()
        with db.atomic():
            audit = durable.store.audit
            list(audit.select().where(audit.message_id == locked.message_id).for_update())
            started = audit_of(other)
            eventually(lambda: audit_of(other).due_at > started.due_at, timeout=10)
        db.close()
    assert audit_of(locked).state == audit_of(other).state == "completed"
