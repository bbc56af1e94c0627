"""An application in real processes, and what a test sees of it from outside."""

import json
from contextlib import ExitStack, closing, contextmanager

import dramatiq
import pytest

from dramatiq_durable import DurableMiddleware
from tests.support.app import App
from tests.support.proxy import Proxy
from tests.support.servers import free_port
from tests.support.waiting import eventually

from .staging import connected, durable_options

# A worker that looks often whether it shall stop, and comes back soon to a broker that failed.
QUICK = {"dramatiq_worker_timeout": "100", "dramatiq_restart_delay": "200"}

# Milliseconds; backoff in seconds, after the first send, the second, ...
OPTIONS = {"heartbeat_interval": 200, "job_timeout": 1_000, "backoff": [0]}


class Stage:
    """One application: its processes, and its messages and audits as this process sees them."""

    def __init__(self, app, broker, durable):
        self.app = app
        self.broker = broker
        self.durable = durable

    def worker(self, *args):
        return self.app.worker(*args)

    def monitor(self, *args, interval=0.2):
        return self.app.monitor("--interval", str(interval), *args)

    def message(self, actor_name, *args, queue_name="default", **options):
        return dramatiq.Message(
            queue_name=queue_name,
            actor_name=actor_name,
            args=args,
            kwargs={},
            options={"durable": True, **options},
        )

    def send(self, actor_name, *args, **options):
        return self.broker.enqueue(self.message(actor_name, *args, **options))

    def audit(self, message):
        return self.durable.store.get(message.message_id)

    def audits(self):
        return self.durable.store.list_audits()

    def started(self, message, count):
        """Its audit as it is when the job has been started for the *count*th time."""

        def find():
            audit = self.audit(message)
            return audit if audit.start_count == count else None

        return eventually(find, message=f"start {count} of {message.actor_name}")

    def finished(self, *messages):
        """Their audits, once all are finished."""

        def find():
            audits = [self.audit(message) for message in messages]
            return audits if all(audit and audit.finished_at for audit in audits) else None

        return eventually(find, message="not all jobs are finished")

    def notes(self, sheet="notes"):
        """What the application has noted so far."""
        path = self.app.folder / sheet
        return path.read_text().splitlines() if path.exists() else []

    def noted(self, *texts):
        """Wait until exactly *texts* are noted, in any order."""
        eventually(
            lambda: sorted(self.notes()) == sorted(texts),
            message=f"{sorted(texts)} are not noted, but {self.notes()}",
        )

    def lose(self):
        """The broker forgets its messages."""
        self.broker.flush_all()
        assert self.queued() == 0

    def open(self, gate):
        (self.app.folder / f"gate-{gate}").touch()

    def queued(self, queue_name="default"):
        """How many messages wait in a queue of RabbitMQ, or are not acked in one of Redis."""
        if hasattr(self.broker, "client"):
            return self.broker.client.hlen(f"{self.broker.namespace}:{queue_name}.msgs")
        return self.broker.get_queue_message_counts(queue_name)[0]

    def status(self):
        """What `dramatiq-durable status` says."""
        done = self.app.run("status", "app:broker", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def dead_letters(self, queue_name="default"):
        if hasattr(self.broker, "client"):
            return self.broker.client.zcard(f"{self.broker.namespace}:{queue_name}.XQ")
        return self.broker.get_queue_message_counts(queue_name)[2]


#: The kinds that the stories are told on: the server of each, and its broker's options.
BROKERS = {
    "redis": ("redis", {}),
    "rabbitmq": ("rabbitmq", {"confirm_delivery": False}),
    "rabbitmq-confirm": ("rabbitmq", {"confirm_delivery": True}),
}


@contextmanager
def staged(
    folder, source, broker_url, database_url, broker_options=None, environment=None, **options
):
    """An application in *folder*, with a table of audits.

    *options* are the DurableMiddleware's, over those at the top of this file; what
    *environment* says is for the application's processes alone.
    """
    broker_options, options = broker_options or {}, {**OPTIONS, **options}
    described = {
        "BROKER_URL": broker_url,
        "BROKER_OPTIONS": json.dumps(broker_options),
        "DATABASE_URL": database_url,
        "DURABLE_OPTIONS": json.dumps(options),
    }
    app = App(folder, source, {**QUICK, **described, **(environment or {})})
    broker = connected(broker_url, **broker_options)
    durable = DurableMiddleware(database_url, **durable_options(**options))
    broker.add_middleware(durable)
    durable.bind(broker)
    durable.create_tables()
    broker.declare_queue("default")
    try:
        yield Stage(app, broker, durable)
    finally:
        app.close()
        show(app)
        broker.close()
        durable.store.connections.close()
        durable.store.reserved().connections.close()  # a Monitor of this process has used it


@pytest.fixture
def make_stage(tmp_path_factory):
    """``make_stage(source, broker_url, database_url, ...)``: see :func:`staged`."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(
            staged(tmp_path_factory.mktemp("app"), *args, **options)
        )


@pytest.fixture
def make_proxy():
    """``make_proxy(url)``: a :class:`Proxy`; its ``.url`` leads to *url*.

    It is on a port that no client gets from the system while the proxy is down.
    """
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(closing(Proxy(url, free_port())))


def show(app):
    """Pytest prints it when the test has failed."""
    for path in sorted(app.folder.glob("output-*")):
        print(f"--- {path.name}\n{path.read_text(errors='replace')}")
