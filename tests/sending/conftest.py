"""An actor that notes its runs, brokers that can be cut off or refuse, what waits in a broker, and statements."""

import json
import threading
from contextlib import contextmanager, nullcontext
from typing import Any

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor
from dramatiq_durable.errors import AuditLocked
from tests.support.proxy import Proxy
from tests.support.servers import free_port


@pytest.fixture
def make_proxy():
    """``make_proxy(url)``: a :class:`Proxy`; its ``.url`` leads to *url*."""
    made = []

    def make(url):
        # The system may give any other port to a client while the proxy is down.
        made.append(Proxy(url, free_port()))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


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


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq-confirm"])
def far_broker(request, make_proxy, use):
    """An empty broker behind a network of its own, ``far_broker.proxy``."""
    if request.param == "redis":
        proxy = make_proxy(request.getfixturevalue("redis_url"))
        broker: Any = RedisBroker(url=proxy.url)
    else:
        proxy = make_proxy(request.getfixturevalue("rabbitmq_url"))
        confirm = request.param == "rabbitmq-confirm"
        broker = RabbitmqBroker(url=proxy.url, confirm_delivery=confirm)
    broker.proxy = proxy
    return use(broker)


class RefusingBroker(StubBroker):
    """Refuses every message for which ``refuses(message, delay)`` is true."""

    refuses = None

    def enqueue(self, message, *, delay=None):
        if self.refuses is not None and self.refuses(message, delay):
            raise dramatiq.errors.ConnectionClosed("refused by the test")
        return super().enqueue(message, delay=delay)


@pytest.fixture
def refusing_broker(use):
    return use(RefusingBroker())


@pytest.fixture
def waiting():
    """``waiting(broker, queue_name)``: how many messages wait there."""

    def count(broker, queue_name="default"):
        if isinstance(broker, StubBroker):
            return broker.queues[queue_name].qsize()
        if isinstance(broker, RedisBroker):
            return broker.client.llen(f"{broker.namespace}:{queue_name}")
        broker.declare_queue(queue_name, ensure=True)
        return broker.get_queue_message_counts(queue_name)[0]

    return count


class Watcher(dramatiq.Middleware):
    """Notes the messages that are about to be processed, and those about to be enqueued."""

    def __init__(self):
        self.processed = []
        self.enqueued = []

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
def statements():
    """``with statements(db) as events``: what is executed in it on *db*, by our stores too."""

    @contextmanager
    def record(db):
        events = []
        db.query_hooks.append(events.append)
        yield events
        db.query_hooks.remove(events.append)

    return record


@pytest.fixture
def ran():
    """What ``charge`` was called with, in the order of its runs."""
    return []


class Charge:
    def __init__(self, ran):
        self._ran = ran
        self._actor = None

    def __call__(self, **options):
        self._actor = durable_actor(self._ran.append, actor_name="charge", **options)
        return self

    def __getattr__(self, name):
        if self._actor is None:
            self()
        return getattr(self._actor, name)


@pytest.fixture
def charge(ran):
    """A durable actor of one argument, declared when a test first uses it; or before, with options: ``charge(max_retries=0)``."""
    return Charge(ran)


@pytest.fixture
def recover(work, monitor):
    """``recover()``: work, and have the monitor send what is due, until nothing is."""

    def run():
        work()
        while monitor.run_once().recovered:
            work()

    return run


@pytest.fixture(params=["alone", "in a transaction"])
def within(request):
    """``with within(db):`` a transaction, or none."""
    return (lambda db: db.atomic()) if request.param == "in a transaction" else nullcontext


@pytest.fixture
def send_beside_each_other():
    """``send_beside_each_other(durable, lists)``: a thread sends each, all at once; how many each has sent, sorted.

    Where others hold what it needs for longer than it waits, it sends its list again, as the error says.
    """

    def run(durable, lists):
        together = threading.Barrier(len(lists))
        sent = []

        def send(messages):
            together.wait()
            while True:
                try:
                    return sent.append(durable.send_many(messages))
                except AuditWriteFailed as error:
                    if not isinstance(error.__cause__, AuditLocked):
                        raise

        threads = [threading.Thread(target=send, args=(messages,)) for messages in lists]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(sent)

    return run


@pytest.fixture
def stub_durable(stub_broker, sqlite_db, make_durable):
    """A DurableMiddleware on a StubBroker and SQLite."""
    return make_durable(stub_broker, sqlite_db)


@pytest.fixture
def db_durable(stub_broker, db, make_durable):
    """A DurableMiddleware on a StubBroker and each database."""
    return make_durable(stub_broker, db)


@pytest.fixture
def redis_durable(redis_broker, sqlite_db, make_durable):
    """A DurableMiddleware on Redis and SQLite."""
    return make_durable(redis_broker, sqlite_db)


class Noting(DurableMiddleware):
    """Notes what could not be enqueued."""

    def enqueue_failed(self, broker, message, error):
        self.failed = [*getattr(self, "failed", []), message.args[0]]


@pytest.fixture
def near_durable(rabbitmq_broker, sqlite_db, make_durable):
    """A Noting on a RabbitMQ that confirms, and SQLite."""
    return make_durable(rabbitmq_broker, sqlite_db, Noting)


@pytest.fixture
def queued(rabbitmq_url):
    """``queued(queue_name)``: take what waits there, as RabbitMQ delivers it: properties and messages."""

    def take(queue_name="default"):
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
            channel = connection.channel()
            count = channel.queue_declare(queue_name, passive=True).method.message_count
            taken = [channel.basic_get(queue_name, auto_ack=True) for _ in range(count)]
        return [(properties, dramatiq.Message.decode(body)) for _, properties, body in taken]

    return take


@pytest.fixture
def decoded():
    """``decoded(audit)``: its payload as the fields of a message."""
    return lambda audit: json.loads(bytes(audit.payload))
