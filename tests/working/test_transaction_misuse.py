"""``transaction()`` where it cannot keep its promise."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import pytest

from dramatiq_durable import DurableError, current_audit, durable_actor


@pytest.fixture
def misuse(durable, sqlite_db, ran, work, audit_of):
    """``misuse(body)``: run it in a job; the DurableError that it meets, and the job's audit."""

    def run(body):
        @durable_actor
        def charge():
            with pytest.raises(DurableError) as caught:
                body()
            ran.append(caught.value)

        message = charge.send()
        work()
        [error] = ran
        return str(error), audit_of(message)

    return run


def test_it_must_be_the_outermost_transaction(misuse, sqlite_db):
    def body():
        with sqlite_db.connection_context(), sqlite_db.atomic(), current_audit().transaction():
            pytest.fail("its effects could be rolled back by the outer one")

    error, audit = misuse(body)
    assert "outermost" in error
    assert audit.state == "completed"


def test_it_completes_a_job_once(misuse):
    def body():
        with current_audit().transaction():
            pass
        with current_audit().transaction():
            pytest.fail("its effects would be those of a job that is over")

    error, audit = misuse(body)
    assert "already" in error
    assert audit.state == "completed"


def test_it_cannot_be_nested(misuse):
    def body():
        with current_audit().transaction(), current_audit().transaction():
            pytest.fail("this one would complete nothing")

    error, audit = misuse(body)
    assert "already" in error
    # The error has left the outer one, so that the job was open, until the body returned.
    assert audit.state == "completed"


def test_after_an_exception_in_it_there_may_be_another(durable, sqlite_db, ran, work, audit_of):
    @durable_actor
    def charge():
        with pytest.raises(KeyError), current_audit().transaction():
            raise KeyError
        ran.append(audit_of(message).state)
        with current_audit().transaction():
            ran.append("again")
        ran.append(audit_of(message).state)

    message = charge.message()
    durable.broker.enqueue(message)
    work()
    assert ran == ["running", "again", "completed"]


def test_it_needs_a_database_that_connections_can_share(stub_broker, make_durable, ran, work):
    durable = make_durable(stub_broker, "sqlite:///:memory:")

    @durable_actor
    def charge():
        with pytest.raises(DurableError, match="share") as caught, current_audit().transaction():
            pytest.fail("this transaction would be everybody's")
        ran.append(caught.value)

    message = charge.send()
    work()
    assert len(ran) == 1
    assert durable.store.get(message.message_id).state == "completed"


def test_a_savepoint_inside_it_is_no_misuse(durable, sqlite_db, work, audit_of):
    @durable_actor
    def charge():
        with current_audit().transaction() as database, pytest.raises(KeyError), database.atomic():
            raise KeyError

    message = charge.send()
    work()
    assert audit_of(message).state == "completed"
