"""The database loses an audit while its job runs: however that ends, the job is not lost with it."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import pytest

from dramatiq_durable import RequeueImmediately, current_audit, durable_actor

from .conftest import Note

pytestmark = pytest.mark.failure(38)


@pytest.fixture
def fail_over(durable_beside, db):
    """``fail_over()``: go on with a database that has got none of the audits."""

    def fail_over():
        with db.connection_context(), db.atomic():
            durable_beside.store.audit.delete().execute()

    return fail_over


@pytest.fixture
def once(fail_over):
    """``once()``, in a body: the failover happens in the first run."""
    happened = []

    def once():
        first = not happened
        happened.append(True)
        if first:
            fail_over()
        return first

    return once


@pytest.fixture
def settle(work, monitor, clock):
    """``settle()``: whatever monitors and workers have to do is done."""

    def settle():
        work()
        for _ in range(3):
            clock.move(hours=1)
            monitor.run_once()
            work()

    return settle


def test_transaction_does_not_end_the_job_without_its_effects(once, settle, notes, audit_of):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)
        once()
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            Note.create(text=f"charged {order_id}")

    message = charge.send(42)
    settle()
    assert notes() == ["charged 42"]
    assert audit_of(message).state == "completed"
    assert 1 <= len(ran) <= 2


def test_a_job_that_asks_for_it_runs_again(once, settle, audit_of):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)
        if once():
            raise RequeueImmediately

    message = charge.send(42)
    settle()
    assert ran == [42, 42]
    assert audit_of(message).state == "completed"


def test_a_job_that_fails_for_the_last_time_leaves_an_audit_with_its_error(once, work, audit_of):
    @durable_actor(max_retries=0)
    def charge(order_id):
        once()
        raise RuntimeError("no luck")

    message = charge.send(42)
    work()
    audit = audit_of(message)
    assert audit is not None
    assert audit.state in ("pending", "dead")
    assert "no luck" in audit.last_error


def test_a_job_that_fails_and_is_retried_runs_again(once, settle, audit_of):
    ran = []

    @durable_actor(max_retries=1, min_backoff=1, max_backoff=1)
    def charge(order_id):
        ran.append(order_id)
        if once():
            raise RuntimeError("no luck")

    message = charge.send(42)
    settle()
    assert ran == [42, 42]
    assert audit_of(message).state == "completed"
