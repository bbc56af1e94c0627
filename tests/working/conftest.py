"""Durable jobs on a StubBroker and SQLite, and what else may be among the middleware."""

import asyncio
import logging
import threading

import dramatiq
import pytest
from dramatiq.middleware import AsyncIO, GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend as StubLimits
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend as StubResults

from dramatiq_durable import durable_actor


@pytest.fixture
def durable(stub_broker, sqlite_db, make_durable):
    """A DurableMiddleware after Dramatiq's own; coroutines may be actors."""
    stub_broker.add_middleware(AsyncIO())
    return make_durable(stub_broker, sqlite_db)


@pytest.fixture(params=["ours first", "ours last"])
def placed(request, stub_broker, sqlite_db, make_durable):
    """A DurableMiddleware before, or after, all that Dramatiq brings."""
    others = [
        *stub_broker.middleware,
        AsyncIO(),
        Results(backend=StubResults()),
        GroupCallbacks(StubLimits()),
    ]
    stub_broker.middleware.clear()
    first = make_durable(stub_broker, sqlite_db) if request.param == "ours first" else None
    for middleware in others:
        stub_broker.add_middleware(middleware)
    return first or make_durable(stub_broker, sqlite_db)


@pytest.fixture
def ran():
    """For the bodies of actors, to note what they do."""
    return []


@pytest.fixture(params=["function", "coroutine"])
def declare(request):
    """``declare(body, **options)``: a durable actor that calls *body*, as a function and as a coroutine."""

    def make(body, **options):
        def function(*args):
            return body(*args)

        async def coroutine(*args):
            return body(*args)

        fn = function if request.param == "function" else coroutine
        return durable_actor(actor_name="charge", **options)(fn)

    return make


@pytest.fixture
def recover(work, monitor, clock):
    """``recover(minutes=1)``: what a monitor sends again by then, and workers make of it."""

    def run(**duration):
        clock.move(**duration)
        done = monitor.run_once()
        work()
        return done

    return run


class Watcher(dramatiq.Middleware):
    """Notes the copies that are enqueued, and those that reach a worker."""

    def __init__(self):
        self.enqueued = []
        self.processed = []

    def before_enqueue(self, broker, message, delay):
        self.enqueued.append(message)

    def before_process_message(self, broker, message):
        self.processed.append(message)


@pytest.fixture
def watcher(stub_broker):
    watcher = Watcher()
    stub_broker.add_middleware(watcher)
    return watcher


class Gate:
    """Where a body waits until the test opens it, at the latest at the end of a ``with`` block."""

    def __init__(self):
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def enter(self):
        """For the body; in short steps, because an interrupt does not reach a wait in C."""
        self._entered.release()
        while not self._open.wait(0.005):
            pass

    async def enter_async(self):
        """For a coroutine."""
        # An interrupt that comes before Dramatiq's thread waits for the coroutine does not cancel it.
        await asyncio.sleep(0.1)
        self._entered.release()
        while not self._open.is_set():  # noqa: ASYNC110 - an asyncio.Event is of one thread
            await asyncio.sleep(0.005)

    def wait_for_body(self):
        assert self._entered.acquire(timeout=30), "no body has come"

    def open(self):
        self._open.set()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.open()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def errors_logged(caplog):
    """``errors_logged()``: what Dramatiq and its middleware logged as an error so far."""

    def errors():
        of_dramatiq = [r for r in caplog.records if r.name.startswith("dramatiq")]
        return [r.getMessage() for r in of_dramatiq if r.levelno >= logging.ERROR]

    return errors
