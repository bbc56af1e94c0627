"""An actor that swallows LeaseLost: its thread goes on at once, and nothing strikes there any more."""

import time

import pytest

from dramatiq_durable import LeaseLost, durable_actor
from dramatiq_durable.middleware import find_middleware

BEAT = 20  # milliseconds
SOON = 2  # seconds


@pytest.fixture
def cancel(stub_broker):
    """``cancel(message)``: as the command does."""
    return lambda message: list(find_middleware(stub_broker).store.cancel([message.message_id]))


@pytest.fixture
def swallow(durable, gate, ran):
    """An actor that is interrupted at the gate, and returns as if nothing had been."""

    @durable_actor(heartbeat_interval=BEAT)
    def swallow():
        try:
            gate.enter()
        except LeaseLost:
            ran.append(time.monotonic())

    return swallow


@pytest.fixture
def ship(durable, ran):
    @durable_actor
    def ship():
        ran.append(time.monotonic())

    return ship


def test_the_next_job_of_the_thread_starts_at_once_and_runs_to_its_end(
    swallow, ship, cancel, gate, ran, running_worker, eventually, audit_of
):
    swallowed, shipped = swallow.send(), ship.send()
    with running_worker(threads=1), gate:
        gate.wait_for_body()
        cancel(swallowed)
        eventually(lambda: len(ran) == 2)
        swallowed_at, shipped_at = ran
        assert shipped_at - swallowed_at < SOON
        eventually(lambda: audit_of(shipped).state == "completed")
    assert audit_of(swallowed).state == "cancelled"


def test_an_interrupt_that_comes_too_late_for_the_body_strikes_nothing_else(
    durable, stub_broker, ship, cancel, ran, running_worker, eventually, audit_of, errors_logged
):
    # In time.sleep() the interrupt waits; then the body has ended.
    @durable_actor(heartbeat_interval=BEAT)
    def sleep():
        ran.append(time.monotonic())
        time.sleep(0.3)

    messages = []
    with running_worker(threads=1):
        for _ in range(10):
            del ran[:]
            sleeper, shipped = sleep.send(), ship.send()
            eventually(lambda: len(ran) == 1)
            cancel(sleeper)
            eventually(lambda: len(ran) == 2)
            messages.append((sleeper, shipped))
        stub_broker.join("default")
    assert durable.flush()
    for sleeper, shipped in messages:
        assert (audit_of(sleeper).state, audit_of(shipped).state) == ("cancelled", "completed")
    assert errors_logged() == []
