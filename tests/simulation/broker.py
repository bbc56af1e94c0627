"""A broker that holds copies in memory, for brokers of several processes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import dramatiq
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import current_millis, dq_name
from dramatiq.errors import ConnectionClosed

from .scheduler import Process


class Calls(Protocol):
    def call(self, what: str, data: bytes) -> str | None:
        """Let others run; returns the fault that strikes this call, if any."""

    def pushed(self, message: dramatiq.Message[Any]) -> None:
        """The broker has said that it has taken *message*."""


class BrokerServer:
    """What the broker of each process talks to."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._queues: dict[str, deque[bytes]] = {}
        self._unacked: dict[int, tuple[Process, str, bytes]] = {}
        self._numbers = itertools.count(1)

    def has_messages(self) -> bool:
        return any(self._queues.values())

    def put(self, queue_name: str, data: bytes) -> None:
        fault = self.calls.call(f"push to {queue_name}", data)
        if fault == "refused":
            raise ConnectionClosed("simulated")
        for _ in range({"swallowed": 0, "doubled": 2}.get(fault or "", 1)):
            self._queues.setdefault(queue_name, deque()).append(data)
        if fault == "answer lost":
            raise ConnectionClosed("simulated")

    def get(self, process: Process, queue_name: str) -> tuple[int, bytes] | None:
        queue = self._queues.get(queue_name)
        if not queue:
            return None
        number, data = next(self._numbers), queue.popleft()
        self._unacked[number] = (process, queue_name, data)
        return number, data

    def ack(self, number: int, data: bytes) -> None:
        fault = self.calls.call("ack", data)
        if fault == "refused":
            raise ConnectionClosed("simulated")
        self._unacked.pop(number, None)
        if fault == "answer lost":
            raise ConnectionClosed("simulated")

    def redeliver(self, process: Process, queue_name: str | None = None) -> None:
        """Put back what *process* has not acked, of one queue or of all."""
        for number in self.abandon(process, queue_name):
            _, name, data = self._unacked.pop(number)
            self._queues.setdefault(name, deque()).append(data)

    def abandon(self, process: Process, queue_name: str | None = None) -> list[int]:
        return [
            number
            for number, (holder, name, _) in self._unacked.items()
            if holder is process and queue_name in {None, name}
        ]

    def flush(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._unacked.clear()


class SimulatedBroker(dramatiq.Broker):
    """The broker of one process; *names_copies* as Redis does, in the option ``redis_message_id``."""

    def __init__(self, server: BrokerServer, process: Process, *, names_copies: bool) -> None:
        super().__init__(middleware=[])
        self.server = server
        self.process = process
        self.queues: dict[str, None] = {}
        self._names = itertools.count(1) if names_copies else None

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)
        delayed = dq_name(queue_name)
        self.delay_queues.add(delayed)
        self.emit_after("declare_delay_queue", delayed)

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        options: dict[str, Any] = {}
        queue_name = message.queue_name
        if delay is not None:
            queue_name = dq_name(queue_name)
            options["eta"] = current_millis() + delay
        if self._names is not None:
            options["redis_message_id"] = f"{self.process.name}-{next(self._names)}"
        message = message.copy(queue_name=queue_name, options=options)
        self.emit_before("enqueue", message, delay)
        self.server.put(queue_name, message.encode())
        self.server.calls.pushed(message)
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 0) -> Consumer:
        return SimulatedConsumer(self.server, self.process, queue_name)


class SimulatedConsumer(Consumer):
    def __init__(self, server: BrokerServer, process: Process, queue_name: str) -> None:
        self.server = server
        self.process = process
        self.queue_name = queue_name

    def __next__(self) -> MessageProxy | None:
        got = self.server.get(self.process, self.queue_name)
        if got is None:
            return None
        number, data = got
        proxy = MessageProxy(dramatiq.Message.decode(data))
        proxy.number, proxy.data = number, data  # type: ignore[attr-defined]
        return proxy

    def ack(self, message: Any) -> None:
        self.server.ack(message.number, message.data)

    nack = ack  # a dead letter is of no use to anybody here

    def requeue(self, messages: Iterable[Any]) -> None:
        self.server.redeliver(self.process, self.queue_name)

    def close(self) -> None:
        pass
