"""Messages on a StubBroker."""

import pytest


@pytest.fixture
def durable(stub_broker, sqlite_db, make_durable):
    return make_durable(stub_broker, sqlite_db)


@pytest.fixture
def waiting(stub_broker):
    """``waiting()``: how many messages wait in the broker, delayed ones too."""
    return lambda: sum(queue.qsize() for queue in stub_broker.queues.values())
