"""The sender dies, or is interrupted, between the audit and the push."""

import signal

import peewee
import pytest

from dramatiq_durable import durable_actor

SOURCE = """
    import os
    import signal

    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker
    from playhouse.db_url import connect

    from dramatiq_durable import DurableMiddleware, durable_actor


    class Die(dramatiq.Middleware):
        armed = False

        def before_enqueue(self, broker, message, delay):
            if self.armed:
                die()


    def die():
        os.kill(os.getpid(), signal.SIGKILL)


    url = os.environ["BROKER_URL"]
    broker = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url)
    db = connect(os.environ["DATABASE_URL"])
    broker.add_middleware(DurableMiddleware(db))
    broker.add_middleware(Die())
    dramatiq.set_broker(broker)


    @durable_actor
    def charge(order_id):
        pass
"""

IN_THE_PUSH = """
    import app
    app.charge.send("before")
    app.Die.armed = True
    app.charge.send("last")
"""

AFTER_THE_COMMIT = """
    import app
    app.charge.send("before")
    with app.db.atomic():
        app.db.after_commit(app.die)
        app.charge.send("last")
"""

AFTER_AN_INNER_BLOCK = """
    import app
    app.charge.send("before")
    with app.db.atomic():
        with app.db.atomic():
            app.charge.send("last")
        app.die()
"""


@pytest.fixture
def ran():
    return []


@pytest.fixture
def declare(ran):
    """The same actor in this process, which keeps a note of its runs."""

    def declare():
        @durable_actor
        def charge(order_id):
            ran.append(order_id)

        return charge

    return declare


@pytest.fixture
def die(app, database_url):
    """``die(broker_url, code)``: run *code* in a process, which ends by SIGKILL."""

    def run(broker_url, code):
        dead = app(SOURCE, BROKER_URL=broker_url, DATABASE_URL=database_url).python(code)
        assert dead.returncode == -signal.SIGKILL, dead.stderr

    return run


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def durable(request, broker_url, db, make_durable):
    """On the broker at *broker_url*."""
    kind = "redis" if broker_url.startswith("redis") else "rabbitmq"
    return make_durable(request.getfixturevalue(f"{kind}_broker"), db)


@pytest.mark.failure(1)
@pytest.mark.parity(1)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_runs_although_its_sender_died_before_the_push(
    durable, broker_url, die, declare, ran, work, monitor, clock, audits
):
    die(broker_url, IN_THE_PUSH)
    declare()
    work()
    assert ran == ["before"]

    clock.move(minutes=10)
    monitor.run_once()
    work()
    assert ran == ["before"]  # the timeout is over, the minute of backoff is not

    clock.move(minutes=1)
    monitor.run_once()
    work()
    assert ran == ["before", "last"]
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(6)
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_a_committed_job_runs_within_a_push_lease_although_its_sender_died_before_the_push(
    durable, broker_url, die, declare, ran, work, monitor, clock, audits
):
    die(broker_url, AFTER_THE_COMMIT)
    declare()
    work()
    assert ran == ["before"]

    clock.move(seconds=60)
    monitor.run_once()
    work()
    assert ran == ["before", "last"]
    last = max(audits(durable), key=lambda audit: audit.id)
    # The first push never was: it is the monitor's that counts from here.
    assert (last.state, last.start_count) == ("completed", 1)


@pytest.mark.failure(5)
@pytest.mark.failure(6)
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_a_job_whose_sender_died_before_the_commit_never_runs(
    durable, broker_url, die, declare, ran, work, monitor, clock, audits
):
    die(broker_url, AFTER_AN_INNER_BLOCK)
    declare()
    clock.move(hours=1)
    monitor.run_once()
    work()
    assert ran == ["before"]
    assert len(audits(durable)) == 1


@pytest.mark.failure(6)
def test_a_callback_of_the_application_that_raises_costs_a_push_lease(
    stub_durable, sqlite_db, ran, declare, work, monitor, clock
):
    """Peewee then drops the callbacks after it, and the push is one of them."""
    charge = declare()

    def fail():
        raise OSError("a file cannot be deleted")

    # On SQLite Peewee hides the error behind that of its rollback.
    with pytest.raises((OSError, peewee.OperationalError)), sqlite_db.atomic():
        sqlite_db.after_commit(fail)
        charge.send("committed")
    work()
    assert ran == []

    clock.move(seconds=60)
    monitor.run_once()
    work()
    assert ran == ["committed"]
