"""A broker whose every message can be lost, workers that die, and what a monitor did."""

import logging
import threading
import uuid
from contextlib import contextmanager

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import durable_actor

from .unknown import UnknownBroker


@pytest.fixture
def ran():
    """What the actors of :func:`declare` were called with."""
    return []


@pytest.fixture
def declare(ran):
    """``declare(**options)``: a durable actor that notes its argument in *ran*."""

    def declare(**options):
        @durable_actor(**options)
        def charge(order_id):
            ran.append(order_id)

        return charge

    return declare


@pytest.fixture
def stub_durable(stub_broker, sqlite_db, make_durable):
    """A DurableMiddleware on a StubBroker and SQLite."""
    return make_durable(stub_broker, sqlite_db)


@contextmanager
def running(*monitors):
    """The ``run()`` of each of *monitors* in a thread, until the block ends."""
    threads = [threading.Thread(target=monitor.run) for monitor in monitors]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for monitor in monitors:
            monitor.stop()
        for thread in threads:
            thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def passes(sqlite_db, eventually):
    """``passes(n)``: wait until the monitors have begun *n* more passes."""
    selects = []

    def note(event):
        if event.sql.startswith("SELECT") and '"due_at" <=' in event.sql:
            selects.append(event)

    def passes(count):
        before = len(selects)
        eventually(lambda: len(selects) >= before + count)

    sqlite_db.query_hooks.append(note)
    yield passes
    sqlite_db.query_hooks.remove(note)


@pytest.fixture
def said(caplog):
    """``said()``: the warnings of a monitor that has trouble to show that it is alive."""

    def warnings():
        found = [r for r in caplog.records if "This monitor has trouble to show" in r.getMessage()]
        return [record.getMessage() for record in found if record.levelno == logging.WARNING]

    return warnings


@pytest.fixture
def unknown(use):
    """A broker of which nothing is known."""
    return use(UnknownBroker())


@pytest.fixture
def rabbitmq(rabbitmq_broker):
    return rabbitmq_broker


class Watcher(dramatiq.Middleware):
    """Notes the messages that pass."""

    def __init__(self):
        self.enqueued = []
        self.processed = []

    def before_enqueue(self, broker, message, delay):
        self.enqueued.append(message)

    def before_process_message(self, broker, message):
        self.processed.append(message)


@pytest.fixture
def watch():
    """``watch(broker)``: a middleware that notes the messages that pass."""

    def add(broker):
        watcher = Watcher()
        broker.add_middleware(watcher)
        return watcher

    return add


@pytest.fixture
def die_while_running(audit_of):
    """``die_while_running(durable, message)``: a worker claims the message's only copy and is gone."""

    def die(durable, message):
        durable.broker.flush_all()
        claim = uuid.uuid4().hex
        epoch = audit_of(message).epoch
        assert durable.store.claim(message.message_id, epoch, claim, worker="dead")

    return die


@pytest.fixture
def use():
    """``use(broker)``: make a broker of the test's own the global one, until its end."""
    before = dramatiq.broker.global_broker
    made = []

    def use(broker):
        dramatiq.set_broker(broker)
        made.append(broker)
        return broker

    yield use
    for broker in made:
        broker.close()
    dramatiq.broker.global_broker = before


@pytest.fixture
def next_deploy(use, sqlite_db, make_durable):
    """``next_deploy()``: an empty broker of the next version of the application, on the same database."""

    def deploy(**options):
        broker = use(StubBroker())
        make_durable(broker, sqlite_db, **options)
        return broker

    return deploy


class Switchable(StubBroker):
    """Raises *error* instead of taking a message, while it has one."""

    error = None

    def __init__(self):
        super().__init__()
        self.attempts = 0

    def enqueue(self, message, *, delay=None):
        self.attempts += 1
        if self.error is not None:
            raise self.error
        return super().enqueue(message, delay=delay)


@pytest.fixture
def switchable(use):
    return use(Switchable())


class Gate(StubBroker):
    """Lets no message in before it is opened, and none at all while it has an *error*."""

    def __init__(self):
        super().__init__()
        self.opened = threading.Event()
        self.opened.set()
        self.reached = threading.Event()
        self.error = None

    def enqueue(self, message, *, delay=None):
        self.reached.set()
        assert self.opened.wait(30)
        if self.error is not None:
            raise self.error
        return super().enqueue(message, delay=delay)


@pytest.fixture
def gate(use):
    return use(Gate())
