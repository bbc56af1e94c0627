"""Somebody who can write the table of audits, the command, and all that is logged and shown."""

import functools
import logging
import traceback

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, Monitor, RequeueImmediately, durable_actor
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
