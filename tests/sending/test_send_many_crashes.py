"""The sender of ``send_many()`` dies between the audits and the pushes, or has little memory."""

import signal
from pathlib import Path

import pytest
from dramatiq.brokers.redis import RedisBroker

NUMBER = 200

SOURCE = """
    import os
    import signal

    import dramatiq
    import pika
    import redis
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker
    from playhouse.db_url import connect

    from dramatiq_durable import DurableMiddleware, durable_actor


    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


    def die_at_the_push(number):
        "Of so many messages, or pipelines of them; the first wait for a RabbitMQ that confirms is for a connection."
        redis.client.Pipeline.execute = _after(number, redis.client.Pipeline.execute)
        channel = pika.adapters.blocking_connection.BlockingChannel
        channel.basic_publish = _after(number, channel.basic_publish)
        loop = pika.adapters.select_connection.IOLoop
        loop.start = _after(number, loop.start)


    def _after(number, call):
        def counted(*args, **kwargs):
            nonlocal number
            number -= 1
            return call(*args, **kwargs) if number else die()
        return counted


    url = os.environ["BROKER_URL"]
    if url.startswith("redis"):
        broker = RedisBroker(url=url)
    else:
        broker = RabbitmqBroker(url=url, confirm_delivery="CONFIRM" in os.environ)
    db = connect(os.environ["DATABASE_URL"])
    durable = DurableMiddleware(db)
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor
    def charge(order_id):
        pass


    arguments = [(n,) for n in range(200)]
"""

AT_A_PUSH = """
    import app
    app.charge.send("before")
    app.die_at_the_push({number})
    app.charge.send_many(app.arguments)
"""

AT_A_PUSH_AFTER_THE_COMMIT = """
    import app
    app.charge.send("before")
    app.die_at_the_push({number})
    with app.db.atomic():
        app.charge.send_many(app.arguments)
"""

AFTER_THE_COMMIT = """
    import app
    app.charge.send("before")
    with app.db.atomic():
        app.db.after_commit(app.die)
        app.charge.send_many(app.arguments)
"""

BEFORE_THE_COMMIT = """
    import app
    app.charge.send("before")
    app.charge.send_many(app.arguments, progress=lambda written, sent: written == 200 and app.die())
"""

IN_THE_TRANSACTION = """
    import app
    app.charge.send("before")
    with app.db.atomic():
        with app.db.atomic():
            app.charge.send_many(app.arguments)
        app.die()
"""


@pytest.fixture
def die(app, broker, broker_url, database_url):
    """``die(code)``: run *code* in a process, which ends by SIGKILL."""
    confirm = {"CONFIRM": "1"} if getattr(broker, "confirm_delivery", False) else {}

    def run(code):
        urls = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
        dead = app(SOURCE, **urls, **confirm).python(code)
        assert dead.returncode == -signal.SIGKILL, dead.stderr

    return run


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq-confirm"])
def broker(broker):
    return broker


@pytest.fixture
def broker_url(request, broker):
    return request.getfixturevalue(
        f"{'redis' if isinstance(broker, RedisBroker) else 'rabbitmq'}_url"
    )


@pytest.fixture
def durable(broker, db, make_durable):
    return make_durable(broker, db)


@pytest.mark.failure(1)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [1, 3])
def test_a_list_runs_although_its_sender_died_at_a_push(
    durable, die, charge, ran, recover, clock, audits, number
):
    die(AT_A_PUSH.format(number=number))
    assert len(audits(durable)) == NUMBER + 1
    charge()
    recover()
    assert ran[0] == "before"
    arrived = len(ran) - 1
    assert (arrived == 0) == (number == 1)
    assert arrived < NUMBER

    clock.move(minutes=10, seconds=30)
    recover()
    assert len(ran) == arrived + 1  # the timeout is over, the minute of backoff is not

    clock.move(seconds=30)
    recover()
    assert sorted(ran[1:]) == list(range(NUMBER))
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(6)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [1, 3])
def test_a_committed_list_runs_within_a_push_lease_although_its_sender_died_at_a_push(
    durable, die, charge, ran, recover, clock, audits, number
):
    die(AT_A_PUSH_AFTER_THE_COMMIT.format(number=number))
    assert len(audits(durable)) == NUMBER + 1
    charge()
    recover()
    assert len(ran) < NUMBER

    clock.move(seconds=60)
    recover()
    assert ran[0] == "before"
    assert sorted(ran[1:]) == list(range(NUMBER))
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(6)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_committed_list_runs_within_a_push_lease_although_its_sender_died_before_the_push(
    durable, die, charge, ran, recover, clock
):
    die(AFTER_THE_COMMIT)
    charge()
    recover()
    assert ran == ["before"]

    clock.move(seconds=60)
    recover()
    assert sorted(ran[1:]) == list(range(NUMBER))


@pytest.mark.failure(5)
@pytest.mark.failure(6)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("code", [BEFORE_THE_COMMIT, IN_THE_TRANSACTION])
def test_of_a_list_whose_sender_died_before_the_commit_nothing_is_there(
    durable, die, charge, ran, recover, clock, audits, code
):
    die(code)
    assert len(audits(durable)) == 1
    charge()
    clock.move(hours=1)
    recover()
    assert ran == ["before"]


MANY = """
    import app


    def peak():
        "In MB, of this program alone: getrusage() counts what its parent had when it forked."
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) // 1024 for line in status if "VmHWM" in line)


    def arguments():
        return ((f"{n:01000}",) for n in range(40_000))


    app.charge.send_many([("x",)])
    before = peak()
    app.charge.send_many(arguments())
    print(peak() - before)
    kept = [app.charge.message(*each) for each in arguments()]
    print(peak() - before)
"""


@pytest.mark.failure(11)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("where", ["alone", "in a transaction"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_list_from_a_generator_takes_much_less_memory_than_its_messages(
    durable, broker_url, app, database_url, where
):
    program = app(SOURCE, BROKER_URL=broker_url, DATABASE_URL=database_url)
    begin = "with app.db.atomic(): " if where == "in a transaction" else ""
    done = program.python(
        MANY.replace(
            "app.charge.send_many(arguments())", f"{begin}app.charge.send_many(arguments())"
        )
    )
    assert done.returncode == 0, done.stderr
    sending, kept = map(int, done.stdout.split())  # MB
    assert sending < 40 < kept
