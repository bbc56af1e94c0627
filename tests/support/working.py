"""Dramatiq workers in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import dramatiq.broker
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import dq_name

from .waiting import PAUSE

WORKER_TIMEOUT = 50  # milliseconds after which an idle worker looks whether it shall stop


def current_broker() -> dramatiq.Broker:
    """The broker of the current test."""
    broker = dramatiq.broker.global_broker
    assert broker is not None, "this test has no broker; ask for one of the broker fixtures"
    return broker


def drain(broker: dramatiq.Broker | None = None, threads: int = 1, timeout: float = 30) -> None:
    """Run a worker until the queues of *broker*, delayed messages included, are empty.

    Then its completions are written.

    Raises:
      TimeoutError: After *timeout* seconds.
    """
    broker = broker or current_broker()
    deadline = time.monotonic() + timeout
    while True:
        with running(broker, threads, timeout) as worker:
            while _waiting(broker) or _unfinished(worker):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"after {timeout} s {_waiting(broker)} messages wait, "
                        f"{_unfinished(worker)} are with the worker"
                    )
                time.sleep(PAUSE)
        # A message on its way from RabbitMQ to the worker is in neither number; now it is back.
        if not _waiting(broker):
            break
    flush(broker, timeout)


def flush(broker: dramatiq.Broker, timeout: float) -> None:
    """Wait until the completions of this process are written."""
    from dramatiq_durable import DurableMiddleware

    for middleware in broker.middleware:
        if isinstance(middleware, DurableMiddleware) and not middleware.flush(timeout):
            raise TimeoutError(f"the completions are not written after {timeout} s")


@contextmanager
def running(
    broker: dramatiq.Broker | None = None, threads: int = 2, timeout: float = 30
) -> Iterator[dramatiq.Worker]:
    """A worker that runs; at the end it has *timeout* seconds to stop."""
    broker = broker or current_broker()
    worker = dramatiq.Worker(broker, worker_timeout=WORKER_TIMEOUT, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=int(timeout * 1000))
        # Dramatiq keeps it among the middleware, where it would consume queues declared later.
        broker.middleware = [
            m for m in broker.middleware if getattr(m, "worker", None) is not worker
        ]
        if isinstance(broker, StubBroker):
            _forget_prefetched(broker)


def _forget_prefetched(broker: StubBroker) -> None:
    """Let go of what a stopped worker took with it: it never comes back, but counts as unfinished."""
    for queue in broker.queues.values():
        while queue.unfinished_tasks > queue.qsize():
            queue.task_done()


def _unfinished(worker: dramatiq.Worker) -> int:
    queues = [worker.work_queue, *(each.delay_queue for each in worker.consumers.values())]
    return sum(queue.unfinished_tasks for queue in queues)


def _waiting(broker: Any) -> int:
    """Messages that are not acked; on RabbitMQ, that no consumer has."""
    if isinstance(broker, RedisBroker):
        return sum(broker.do_qsize(name) for name in broker.queues)
    if isinstance(broker, StubBroker):
        return sum(queue.unfinished_tasks for queue in broker.queues.values())
    assert isinstance(broker, RabbitmqBroker)
    with pika.BlockingConnection(broker.parameters) as connection:
        names = [name for queue in broker.queues for name in (queue, dq_name(queue))]
        return sum(_ready(connection, name) for name in names)


def _ready(connection: pika.BlockingConnection, queue_name: str) -> int:
    channel = connection.channel()
    try:
        declared = channel.queue_declare(queue_name, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return 0  # it is declared when the first message is sent
    channel.close()
    count: int = declared.method.message_count
    return count
