"""``send_async()`` in actors that are coroutines, and in hooks after them."""

import asyncio
import concurrent.futures
import sys
import threading
import traceback

import dramatiq
import pytest
from dramatiq.asyncio import async_to_sync
from dramatiq.middleware import AsyncIO
from dramatiq.middleware.threading import raise_thread_exception
from dramatiq.middleware.time_limit import TimeLimitExceeded

from dramatiq_durable import DurableMiddleware, durable_actor

pytestmark = pytest.mark.failure(47)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def durable(refusing_broker, sqlite_db, make_durable):
    refusing_broker.add_middleware(AsyncIO())
    return make_durable(refusing_broker, sqlite_db)


@pytest.fixture
def ship(durable, ran):
    @durable_actor(max_payload_size=2_000)
    def ship(order_id):
        ran.append(order_id)

    return ship


def test_a_coroutine_sends(durable, ship, ran, work, audits):
    @durable_actor
    async def charge(order_id):
        await asyncio.gather(ship.send_async(order_id), ship.send_async(order_id + 1))

    charge.send(41)
    work()
    assert sorted(ran) == [41, 42]
    assert {audit.state for audit in audits(durable)} == {"completed"}


def test_what_a_coroutine_cannot_send_is_its_own_error(durable, ship, ran, work, audit_of):
    @durable_actor(max_retries=0)
    async def charge():
        await ship.send_async("x" * 2_000)

    message = charge.send()
    work()
    assert ran == []
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == ("pending", 1)
    assert "PayloadTooLarge" in audit.last_error


def test_a_running_job_cannot_enqueue_its_own_message(durable, refusing_broker, work, audit_of):
    received = []

    class Notes(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            received.append(message._message)

    refusing_broker.add_middleware(Notes())

    @durable_actor(max_retries=0)
    async def charge():
        await durable.enqueue_async(received[0])

    message = charge.send()
    work()
    assert len(received) == 1
    assert "is running, so it cannot be enqueued again" in audit_of(message).last_error


class SendsOn(dramatiq.Middleware):
    """Sends another message when a job is done; Dramatiq swallows what that raises."""

    def __init__(self, send):
        self.send = send

    def after_process_message(self, broker, message, *, result=None, exception=None):
        if message.actor_name == "charge" and exception is None:
            async_to_sync(self.send)()


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    async def charge():
        ran.append("charge")

    return charge


@pytest.mark.failure(14)
@pytest.mark.parametrize("place", ["before ours", "after ours"])
def test_a_job_whose_follow_up_could_not_be_sent_is_released(
    durable, refusing_broker, ship, charge, ran, work, monitor, clock, audit_of, place
):
    size = [2_000]
    hook = SendsOn(lambda: ship.send_async("x" * size[0]))
    before = DurableMiddleware if place == "before ours" else None
    refusing_broker.add_middleware(hook, before=before)

    message = charge.send()
    work()
    assert ran == ["charge"]
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == ("pending", 1)

    size[0] = 1
    clock.move(minutes=12)
    monitor.run_once()
    work()
    assert ran == ["charge", "charge", "x"]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(14)
def test_a_job_whose_plain_follow_up_could_not_be_pushed_is_released(
    durable, refusing_broker, charge, ran, work, audit_of
):
    @dramatiq.actor
    def greet():
        ran.append("greet")

    refusing_broker.refuses = lambda message, delay: message.actor_name == "greet"
    refusing_broker.add_middleware(SendsOn(lambda: durable.enqueue_async(greet.message())))
    message = charge.send()
    work()
    assert ran == ["charge"]
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == ("pending", 1)


class WorkerThread(dramatiq.Middleware):
    def before_process_message(self, broker, message):
        self.ident = threading.get_ident()

    def waits_for_a_coroutine(self):
        """An interrupt that comes before that does not cancel it."""
        stack = traceback.walk_stack(sys._current_frames()[self.ident])
        waits = concurrent.futures.Future.result.__code__
        return any(frame.f_code is waits for frame, _ in stack)


def test_an_interrupt_does_not_wait_for_a_send_which_goes_on(
    durable, refusing_broker, ran, work, audits, waiting, eventually
):
    """Dramatiq gives a coroutine that it interrupts one second to end."""
    worker = WorkerThread()
    refusing_broker.add_middleware(worker)
    interrupted = threading.Event()

    @durable_actor
    def ship():
        ran.append("ship")

    def refuses(message, delay):
        if message.actor_name == "ship":
            eventually(worker.waits_for_a_coroutine)
            raise_thread_exception(worker.ident, TimeLimitExceeded)
            assert interrupted.wait(30)
        return False

    refusing_broker.refuses = refuses

    @durable_actor(max_retries=0)
    async def charge():
        try:
            await ship.send_async()
        except asyncio.CancelledError:
            interrupted.set()
            raise

    charge.send()
    work()
    eventually(lambda: ran or waiting(refusing_broker))
    work()
    assert ran == ["ship"]
    found = {audit.actor_name: (audit.state, audit.last_error) for audit in audits(durable)}
    assert found["ship"] == ("completed", None)
    assert found["charge"][0] == "pending"
    assert TimeLimitExceeded.__name__ in found["charge"][1]
