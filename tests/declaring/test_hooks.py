"""audit_failed and enqueue_failed, as they are and overridden."""

import logging

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor


class Refusing(StubBroker):
    """Takes no messages while ``refuses``."""

    refuses = False

    def enqueue(self, message, *, delay=None):
        if self.refuses:
            raise dramatiq.errors.ConnectionClosed("refused by the test")
        return super().enqueue(message, delay=delay)


class Told(Exception):
    """What the overridden hooks raise."""


class Noting(DurableMiddleware):
    """Notes what its hooks are told."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.told = []


class Swallowing(Noting):
    def audit_failed(self, broker, message, error):
        self.told.append((broker, message.message_id, error))

    def enqueue_failed(self, broker, message, error):
        self.told.append((broker, message.message_id, error))


class Raising(Noting):
    def audit_failed(self, broker, message, error):
        raise Told(message.message_id) from error

    def enqueue_failed(self, broker, message, error):
        raise Told(message.message_id) from error


@pytest.fixture
def broker():
    before = dramatiq.broker.global_broker
    broker = Refusing()
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.broker.global_broker = before
    broker.close()


@pytest.fixture
def job_of(broker, sqlite_db):
    """``job_of(Middleware)``: its middleware and an actor, whose runs are in ``middleware.ran``."""
    made = []

    def make(cls):
        middleware = cls(sqlite_db)
        made.append(middleware)
        broker.add_middleware(middleware)
        middleware.create_tables()
        middleware.ran = []
        return middleware, durable_actor(actor_name="job")(middleware.ran.append)

    yield make
    for middleware in made:
        middleware.store.connections.close()


@pytest.fixture
def lose_table(sqlite_db):
    return lambda: sqlite_db.execute_sql("DROP TABLE durable_audits")


def waiting(broker):
    return broker.queues["default"].qsize()


@pytest.mark.parity(8)
def test_an_audit_that_cannot_be_written_is_an_error_and_nothing_is_pushed(
    broker, job_of, lose_table
):
    _, job = job_of(DurableMiddleware)
    lose_table()
    with pytest.raises(AuditWriteFailed) as caught:
        job.send("secret")
    assert caught.value.actor_name == "job"
    assert "secret" not in str(caught.value)
    assert waiting(broker) == 0


@pytest.mark.parity(8)
def test_audit_failed_may_let_the_message_go_without_its_audit(broker, job_of, lose_table):
    middleware, job = job_of(Swallowing)
    lose_table()
    message = job.send(1)
    [(told_broker, message_id, error)] = middleware.told
    assert told_broker is broker
    assert message_id == message.message_id
    assert isinstance(error, Exception)
    assert waiting(broker) == 1


@pytest.mark.parity(8)
def test_a_message_that_went_without_its_audit_runs_when_the_table_is_back(
    broker, job_of, lose_table, work
):
    middleware, job = job_of(Swallowing)
    lose_table()
    message = job.send(1)
    middleware.create_tables()
    work()
    assert middleware.ran == [1]
    assert middleware.store.get(message.message_id).state == "completed"


@pytest.mark.parity(8)
def test_what_audit_failed_raises_reaches_the_sender(broker, job_of, lose_table):
    _, job = job_of(Raising)
    lose_table()
    with pytest.raises(Told) as caught:
        job.send(1)
    assert caught.value.__cause__ is not None
    assert waiting(broker) == 0


@pytest.mark.parity(9)
def test_a_message_that_the_broker_refuses_is_logged_and_sent_by_the_monitor(
    broker, job_of, monitor, work, caplog
):
    middleware, job = job_of(DurableMiddleware)
    broker.refuses = True
    with caplog.at_level(logging.WARNING):
        message = job.send("secret")
    assert message.message_id in caplog.text
    assert "secret" not in caplog.text
    broker.refuses = False
    assert monitor.run_once().recovered == 1
    work()
    assert middleware.ran == ["secret"]


@pytest.mark.parity(9)
def test_enqueue_failed_may_do_something_else_and_the_row_stays(
    broker, job_of, monitor, work, caplog
):
    middleware, job = job_of(Swallowing)
    broker.refuses = True
    with caplog.at_level(logging.WARNING):
        message = job.send(1)
    [(told_broker, message_id, error)] = middleware.told
    assert told_broker is broker
    assert message_id == message.message_id
    assert str(error) == "refused by the test"
    assert message.message_id not in caplog.text
    broker.refuses = False
    assert monitor.run_once().recovered == 1
    work()
    assert middleware.ran == [1]


@pytest.mark.parity(9)
def test_what_enqueue_failed_raises_reaches_the_sender_and_the_row_stays(
    broker, job_of, monitor, work
):
    middleware, job = job_of(Raising)
    broker.refuses = True
    with pytest.raises(Told) as caught:
        job.send(1)
    assert str(caught.value.__cause__) == "refused by the test"
    broker.refuses = False
    assert monitor.run_once().recovered == 1
    work()
    assert middleware.ran == [1]


@pytest.mark.parity(8)
@pytest.mark.parity(9)
def test_neither_hook_is_called_when_all_is_well(broker, job_of, work):
    middleware, job = job_of(Swallowing)
    job.send(1)
    job.send_with_options(args=(2,), delay=1)
    work()
    assert sorted(middleware.ran) == [1, 2]
    assert middleware.told == []
