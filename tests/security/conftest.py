"""Somebody who can write the table of audits or lacks a right, the command, and all that is logged and shown."""

import functools
import logging
import re
import traceback

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import (
    DurableMiddleware,
    Monitor,
    RequeueImmediately,
    current_audit,
    durable_actor,
)
from tests.support import working
from tests.support.commands import command_for


@pytest.fixture
def command_on(monkeypatch):
    """``command_on(broker)``: see :func:`command_for`."""
    return functools.partial(command_for, monkeypatch)


@pytest.fixture
def encode_with():
    """``encode_with(encoder)``, until the end of the test."""
    before = dramatiq.get_encoder()
    yield dramatiq.set_encoder
    dramatiq.set_encoder(before)


@pytest.fixture
def logged(caplog):
    """``logged()``: what all loggers of this process have said at DEBUG, with tracebacks."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


@pytest.fixture
def shown():
    """``shown(error)``: what a traceback shows of it, the errors behind it included."""
    return lambda error: "".join(traceback.format_exception(error))


class Process:
    """One of the processes of an application, on a broker that has none of the others' messages."""

    def __init__(self, database, options):
        self.ran = []
        self.broker = StubBroker()
        self.durable = DurableMiddleware(database, **options)
        self.broker.add_middleware(self.durable)
        self.durable.create_tables()

        @durable_actor(broker=self.broker, max_retries=0)
        def charge(order_id):
            self.ran.append(order_id)
            if order_id == "requeued" and self.ran.count(order_id) == 1:
                raise RequeueImmediately

        self.charge = charge

    def monitor(self):
        """One pass; its counts."""
        return Monitor(self.broker).run_once()

    def work(self):
        working.drain(self.broker)

    def waiting(self):
        """How many messages are in the broker."""
        return sum(queue.qsize() for queue in self.broker.queues.values())

    def audit(self, message):
        return self.durable.store.get(message.message_id)


@pytest.fixture
def process(db):
    """``process(**options)``: a :class:`Process` on the test's database; *options* of the middleware."""
    made = []

    def start(**options):
        made.append(Process(db, options))
        return made[-1]

    yield start
    for each in made:
        each.broker.close()
        for store in each.durable.stores():
            store.connections.close()


class Picky(dramatiq.Middleware):
    def before_enqueue(self, broker, message, delay):
        if message.args == ("refused",):
            raise dramatiq.middleware.MiddlewareError


class Broker(StubBroker):
    """Has no room for what is called "full"."""

    def enqueue(self, message, *, delay=None):
        if message.args == ("full",):
            for middleware in self.middleware:
                middleware.before_enqueue(self, message, delay)
            raise ConnectionError
        return super().enqueue(message, delay=delay)


@pytest.fixture
def grant(database_url, db):
    """``grant(right)`` to the user ``app``: ``SELECT``, ``CREATE``; ``SELECT ON durable_audits`` as in the README."""
    user, host = ("app", "") if "postgres" in database_url else ("'app'@'127.0.0.1'", "mysql")
    schema = "SCHEMA public" if not host else f"{database_url.rpartition('/')[2]}.*"
    db.execute_sql(f"CREATE USER {user}")

    def grant(right):
        on = "" if " ON " in right else f" ON {schema if right in OF_SCHEMA else 'durable_audits'}"
        db.execute_sql(f"GRANT {right}{on} TO {user}")
        if not host and right == "INSERT":
            db.execute_sql(f"GRANT USAGE ON SEQUENCE durable_audits_id_seq TO {user}")

    yield grant
    if not host:
        db.execute_sql(f"DROP OWNED BY {user}")
    db.execute_sql(f"DROP USER {user}")


OF_SCHEMA = {"CREATE", "INDEX"}


@pytest.fixture
def jobs(db):
    """``jobs(database)``: a broker on *database*, and what its durable actor has run."""
    made = []

    def make(database):
        broker = Broker()
        durable = DurableMiddleware(database)
        broker.add_middleware(durable)
        broker.add_middleware(Picky())
        made.append(durable)
        ran = []

        @durable_actor(
            broker=broker, max_retries=0, job_timeout=1_000, heartbeat_interval=25, throws=KeyError
        )
        def job(what):
            ran.append(what)
            if what == "requeue":
                raise RequeueImmediately
            if what == "transaction":
                audit = current_audit()
                assert audit is not None
                with audit.transaction():
                    pass
            if what in {"fail", "dead"}:
                raise KeyError if what == "dead" else ValueError

        return broker, durable, job, ran

    yield make
    for durable in made:
        for connections in (durable.store.connections, durable.database):
            connections.close()


@pytest.fixture
def owner(jobs, db):
    """The same for the user that owns the table, which is there."""
    made = jobs(db)
    made[1].create_tables()
    return made


@pytest.fixture
def of_app(jobs, database_url):
    """The same for the user ``app``."""
    return jobs(re.sub("//(postgres|root)@", "//app@", database_url))
