"""``current_audit().transaction()`` is committed, and something goes wrong after that."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import dramatiq
import pytest

from dramatiq_durable import current_audit, durable_actor


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
