"""A wait for a queue ends, however long the thread stands still in it."""

import queue
import threading
from contextlib import suppress

import pytest

from dramatiq_durable.receiving import receive
from dramatiq_durable.stopping import Stop

WAITS = 100_000


def receive_nothing():
    with suppress(queue.Empty):
        receive(queue.SimpleQueue(), 1e-6)


def stop_nothing():
    Stop().wait(1e-6)


@pytest.mark.failure(16)
@pytest.mark.parametrize("wait", [receive_nothing, stop_nothing])
def test_a_wait_that_is_over_by_its_second_look_ends(wait):
    waits = threading.Thread(target=lambda: [wait() for _ in range(WAITS)], daemon=True)
    waits.start()
    waits.join(timeout=45)
    assert not waits.is_alive()
