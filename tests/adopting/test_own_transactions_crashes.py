"""The sender dies before its commit, or between that and the push, or forks; or the answer to that is lost."""

import signal

import pytest
from sqlalchemy.exc import OperationalError

from dramatiq_durable import durable_actor

SOURCE = """
    import os
    import signal

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from playhouse.db_url import connect

    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.adopting.applications import KINDS


    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)


    broker = RedisBroker(url=os.environ["BROKER_URL"])
    durable = DurableMiddleware(connect(os.environ["DATABASE_URL"]))
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    kind, _, driver = os.environ["WAY"].partition("-")
    shop = KINDS[kind](os.environ["DATABASE_URL"], driver)


    @durable_actor
    def charge(order_id):
        pass
"""

BEFORE_THE_COMMIT = """
    from app import *

    with shop.begin(), durable.transaction(shop.connection):
        charge.send("before")
    with shop.begin(), durable.transaction(shop.connection):
        charge.send("last")
        charge.send_many([("last",)])
        die()
"""

AFTER_THE_COMMIT = """
    from app import *

    with shop.begin(), durable.transaction(shop.connection):
        charge.send("before")
    if kind == "session":
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        event.listen(Session, "after_commit", die)
    elif kind == "connection":
        from sqlalchemy import event

        event.listen(shop.engine, "checkin", die, insert=True)
    with shop.begin(), durable.transaction(shop.connection):
        if kind == "django":
            from django.db import transaction

            transaction.on_commit(die)
        if kind == "peewee":
            shop.connection.after_commit(die)
        charge.send("last")
        charge.send_many([("last",)])
"""

FORK = """
    from app import *

    with shop.begin(), durable.transaction(shop.connection):
        child = os.fork()
        if not child:
            charge.send("child")
            charge.send_many([("child",)])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        charge.send("last")
        die()
"""


@pytest.fixture
def die(app, way, database_url, redis_url):
    """``die(code)``: run *code* in a process, which ends by SIGKILL."""

    def run(code):
        environment = {"BROKER_URL": redis_url, "DATABASE_URL": database_url, "WAY": way}
        dead = app(SOURCE, **environment).python(code)
        assert dead.returncode == -signal.SIGKILL, dead.stderr

    return run


@pytest.fixture
def charged(shop, redis_broker, db, make_durable, ran):
    """The middleware of the same application in this process, which keeps a note of its runs."""
    durable = make_durable(redis_broker, db)
    durable_actor(ran.append, actor_name="charge")
    return durable


@pytest.mark.failure(6)
def test_a_committed_job_runs_within_a_push_lease_although_its_sender_died_before_the_push(
    charged, die, ran, work, monitor, clock, audits
):
    die(AFTER_THE_COMMIT)
    work()
    assert ran == ["before"]
    assert len(audits(charged)) == 3

    clock.move(seconds=60)
    monitor.run_once()
    work()
    assert ran == ["before", "last", "last"]


@pytest.mark.failure(5)
def test_a_job_never_runs_when_its_sender_died_before_the_commit(
    charged, die, ran, work, monitor, clock, audits
):
    die(BEFORE_THE_COMMIT)
    assert len(audits(charged)) == 1
    clock.move(hours=2)
    monitor.run_once()
    work()
    assert ran == ["before"]


@pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "django-mariadb"])
def test_what_a_child_sends_is_not_part_of_it(way, charged, die, ran, work, audits):
    die(FORK)
    assert len(audits(charged)) == 2
    work()
    assert ran == ["child", "child"]


@pytest.mark.failure(6)
@pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "session-pymysql"])
def test_when_the_answer_to_the_commit_is_lost_what_was_committed_runs(
    way, shop, durable, charge, ran, waiting, work
):
    commit = shop.engine.dialect.do_commit

    def commit_unheard(connection):
        commit(connection)
        raise shop.engine.dialect.dbapi.OperationalError("server closed the connection")

    shop.engine.dialect.do_commit = commit_unheard
    with pytest.raises(OperationalError), shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
    assert waiting() == 1
    work()
    assert ran == [1]
