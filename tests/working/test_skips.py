"""What becomes of an audit when another middleware skips its message, or the body leaves things open."""

import time

import dramatiq
import peewee
import pytest
from dramatiq.middleware import AgeLimit, SkipMessage

from dramatiq_durable import durable_actor

HOUR = 3_600_000  # milliseconds


class Abort(dramatiq.Middleware):
    """Skips what has been revoked, as dramatiq-abort does."""

    def __init__(self):
        self.revoked = set()

    def before_process_message(self, broker, message):
        if message.message_id in self.revoked:
            raise SkipMessage


@pytest.fixture(params=["before ours", "after ours"])
def place(request, stub_broker, durable):
    """``place(middleware)``: add it to the broker, before or after ours."""

    def place(middleware):
        stub_broker.middleware = [
            m for m in stub_broker.middleware if type(m) is not type(middleware)
        ]
        where = {"before" if request.param == "before ours" else "after": type(durable)}
        stub_broker.add_middleware(middleware, **where)
        return middleware

    return place


@pytest.fixture
def charge(place, ran):
    place(AgeLimit())

    @durable_actor(max_age=HOUR)
    def charge(order_id):
        ran.append(order_id)

    return charge


@pytest.fixture
def aged():
    """``aged(message)``: the message as if it had been made two hours ago."""

    def aged(message):
        return message.copy(message_timestamp=int(time.time() * 1000) - 2 * HOUR)

    return aged


@pytest.mark.failure(25)
def test_a_job_past_its_max_age_is_dead(charge, aged, stub_broker, ran, work, recover, audit_of):
    message = stub_broker.enqueue(aged(charge.message(42)))
    work()
    audit = audit_of(message)
    assert (audit.state, audit.due_at) == ("dead", None)
    assert audit.finished_at is not None
    assert audit.last_error
    assert b"42" in bytes(audit.payload)
    recover(days=1)
    assert ran == []


def test_a_job_within_its_max_age_runs(charge, ran, work, audit_of):
    message = charge.send(42)
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


def test_a_copy_past_its_max_age_does_not_end_what_another_copy_runs(
    place, stub_broker, aged, ran, gate, running_worker, eventually, audit_of
):
    place(AgeLimit())

    @durable_actor
    def charge():
        gate.enter()
        ran.append("charge")

    with running_worker(threads=2), gate:
        message = charge.send()
        gate.wait_for_body()
        stub_broker.enqueue(aged(message.copy(options={"max_age": HOUR})))
        eventually(lambda: stub_broker.queues["default"].unfinished_tasks == 1)
        assert audit_of(message).state == "running"
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"


def test_a_copy_past_its_max_age_does_not_end_a_completed_job(
    charge, aged, stub_broker, ran, work, audit_of
):
    message = charge.send(42)
    work()
    stub_broker.enqueue(aged(message))
    work()
    assert ran == [42]
    assert audit_of(message).state == "completed"


def test_a_job_that_another_middleware_skips_is_cancelled(
    place, stub_broker, ran, work, recover, audit_of
):
    abort = place(Abort())

    @durable_actor
    def charge():
        ran.append("charge")

    message = charge.send()
    abort.revoked.add(message.message_id)
    work()
    audit = audit_of(message)
    assert (audit.state, audit.due_at) == ("cancelled", None)
    assert audit.finished_at is not None

    abort.revoked.clear()
    stub_broker.enqueue(message)
    recover(hours=12)
    assert ran == []
    assert audit_of(message).state == "cancelled"
    assert stub_broker.dead_letters == []


def test_a_skipped_copy_does_not_end_what_another_copy_runs(
    place, stub_broker, ran, gate, running_worker, eventually, audit_of
):
    abort = place(Abort())

    @durable_actor
    def charge():
        gate.enter()
        ran.append("charge")

    with running_worker(threads=2), gate:
        message = charge.send()
        gate.wait_for_body()
        abort.revoked.add(message.message_id)
        stub_broker.enqueue(message)
        eventually(lambda: stub_broker.queues["default"].unfinished_tasks == 1)
        assert audit_of(message).state == "running"
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"


@pytest.mark.parametrize("how", ["aged", "aborted"])
def test_a_skipped_copy_of_an_older_epoch_does_not_end_the_job(
    place, aged, stub_broker, ran, work, recover, audit_of, how
):
    abort, _ = place(Abort()), place(AgeLimit())

    @durable_actor(max_retries=0, max_age=HOUR)
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            raise RuntimeError("no luck")

    message = charge.send()
    work()
    before = dict(audit_of(message).__data__)
    if how == "aborted":
        abort.revoked.add(message.message_id)
    stub_broker.enqueue(aged(message) if how == "aged" else message)
    work()
    assert dict(audit_of(message).__data__) == before

    abort.revoked.clear()
    recover(minutes=1)
    assert ran == ["charge", "charge"]
    assert audit_of(message).state == "completed"


# What the body leaves open


only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Order(peewee.Model):
    total = peewee.IntegerField()


class Closing(dramatiq.Middleware):
    """Closes what the actors have left open in a thread, when that ends."""

    def __init__(self, db):
        self.db = db

    def before_worker_thread_shutdown(self, broker, thread):
        self.db.close()


@pytest.fixture
def orders(stub_broker, db):
    stub_broker.add_middleware(Closing(db))
    with Order.bind_ctx(db):
        db.create_tables([Order])
        db.close()
        yield Order


@pytest.mark.failure(23)
def test_a_transaction_that_the_body_leaves_open_is_rolled_back(
    stub_broker, db, make_durable, orders, work, audit_of, caplog
):
    make_durable(stub_broker, db)

    @durable_actor
    def charge():
        db.connect(reuse_if_open=True)
        db.begin()
        orders.create(total=42)

    message = charge.send()
    work()
    assert audit_of(message).state == "completed"
    assert orders.select().count() == 0
    [warning] = [r for r in caplog.records if "transaction" in r.getMessage()]
    assert warning.levelname == "WARNING"
    assert message.message_id in warning.getMessage()


@only_sqlite
@pytest.mark.failure(23)
def test_a_block_that_the_body_never_leaves_is_rolled_back(
    stub_broker, db, make_durable, orders, work, audit_of, caplog
):
    make_durable(stub_broker, db)

    @durable_actor
    def charge():
        db.atomic().__enter__()
        db.atomic().__enter__()
        orders.create(total=42)

    message = charge.send()
    work()
    assert audit_of(message).state == "completed"
    assert orders.select().count() == 0
    assert "left a transaction open" in caplog.text


@only_sqlite
@pytest.mark.failure(23)
def test_what_the_body_commits_or_leaves_to_autocommit_stays(
    stub_broker, db, make_durable, orders, work, audit_of, caplog
):
    make_durable(stub_broker, db)

    @durable_actor
    def charge():
        with db.connection_context():
            orders.create(total=1)
            with db.atomic():
                orders.create(total=2)

    message = charge.send()
    work()
    assert audit_of(message).state == "completed"
    assert orders.select().count() == 2
    assert caplog.records == []
