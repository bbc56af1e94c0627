"""``current_audit().transaction()`` is committed, and something goes wrong after that."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import dramatiq
import pytest
from dramatiq.middleware import TimeLimitExceeded

from dramatiq_durable import current_audit, durable_actor
from tests.connections.striking import Strike


@pytest.fixture
def refund(durable, ran):
    @dramatiq.actor
    def refund(message, info):
        ran.append("refund")


def fail():
    raise RuntimeError("no luck")


def test_a_job_whose_after_commit_callback_fails_is_complete_and_nobody_makes_up_for_it(
    durable, refund, ran, work, audit_of
):
    @durable_actor(max_retries=0, on_retry_exhausted="refund")
    def charge():
        with current_audit().transaction() as database:
            ran.append("charge")
            database.after_commit(fail)

    message = charge.send()
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"


def test_a_job_that_fails_after_its_transaction_is_complete_and_nobody_makes_up_for_it(
    durable, refund, ran, work, audit_of
):
    @durable_actor(max_retries=0, on_retry_exhausted="refund")
    def charge():
        with current_audit().transaction():
            ran.append("charge")
        fail()

    message = charge.send()
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"


class StrikeInTransaction(Strike):
    """Strikes in ``transaction()`` itself."""

    def _called(self, frame, event, _):
        if frame.f_code.co_name != "transaction":
            return None
        return super()._called(frame, event, _)


@pytest.mark.failure(22)
def test_a_lease_is_renewed_again_after_a_transaction_that_was_struck_at_its_begin(
    durable, ran, work, eventually, audit_of
):
    @durable_actor(max_retries=0, heartbeat_interval=10)
    def charge():
        audit = current_audit()

        def begin():
            with audit.transaction():
                raise KeyError

        def renewed():
            before = audit_of(message).due_at
            eventually(lambda: audit_of(message).due_at > before, timeout=10)

        for point in range(1, 8):
            try:
                with StrikeInTransaction(point).armed():
                    begin()
            except (TimeLimitExceeded, KeyError):
                renewed()
        ran.append("charge")

    message = charge.message()
    durable.broker.enqueue(message)
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"
