"""Connections to RabbitMQ on which many messages are out before the first confirmation is waited for."""

from __future__ import annotations

import os
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPConnectionError, NackError, UnroutableError

from .base import Call

#: Seconds that a connection is kept with nothing to do.  It sends no heartbeats meanwhile, so RabbitMQ closes it after a
#: minute or two by default, and what lies between may have forgotten it.
KEPT = 30.0

#: Seconds that RabbitMQ gets to say goodbye.
CLOSES_WITHIN = 1.0


class Publisher:
    """A connection in the mode of confirmations, for one thread at a time.

    Pika's BlockingConnection, which Dramatiq uses, waits for each of them.

    Raises:
      AMQPError: There is no connection.
    """

    def __init__(self, parameters: Sequence[pika.connection.Parameters]) -> None:
        self._loop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._confirms = False
        self._lost: Exception | None = None
        self._last_tag = 0  # RabbitMQ counts what is published on a channel
        self._unconfirmed: dict[int, Call] = {}  # by tag
        self._refused: dict[int, Exception] = {}
        pika.SelectConnection.create_connection(
            parameters, on_done=self._connected, custom_ioloop=self._loop
        )
        self._wait(lambda: self._confirms or not self.usable)
        error = self._lost
        if error is not None:
            self.close()
            raise error

    @property
    def usable(self) -> bool:
        return self._lost is None

    def publish(self, calls: Mapping[int, Call]) -> dict[int, Exception]:
        """Publish, and wait until all are confirmed; returns why some are not, and those may have arrived."""
        tags: dict[int, int] = {}
        errors: dict[int, Exception] = {}
        self._unconfirmed = {}
        self._refused = {}
        for number, call in calls.items():
            try:
                self._publish(call)
            except struct.error as error:  # of pika's encoding, before a byte of it is out
                errors[number] = error
                continue
            self._last_tag += 1
            tags[self._last_tag] = number
            self._unconfirmed[self._last_tag] = call
        self._wait(lambda: not self._unconfirmed or not self.usable)
        if self._lost is not None:
            self._refused.update(dict.fromkeys(self._unconfirmed, self._lost))
        return errors | {tags[tag]: error for tag, error in self._refused.items()}

    def _publish(self, call: Call) -> None:
        self._channel.basic_publish(
            exchange="",
            routing_key=call["queue_name"],
            body=call["body"],
            properties=pika.BasicProperties(delivery_mode=2, priority=call["priority"]),
            mandatory=True,
        )

    def close(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()
            end = time.monotonic() + CLOSES_WITHIN
            self._loop.call_later(CLOSES_WITHIN, self._loop.stop)
            self._wait(lambda: connection.is_closed or time.monotonic() >= end)
        self._loop.close()

    def _wait(self, done: Callable[[], bool]) -> None:
        while not done():
            self._loop.start()  # until one of those below stops it

    def _connected(self, result: Any) -> None:
        if isinstance(result, BaseException):
            self._lose(AMQPConnectionError(result))
            return
        self._connection = result
        result.add_on_close_callback(lambda connection, error: self._lose(error))
        result.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda channel, error: self._lose(error))
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._answered, callback=self._selected)

    def _selected(self, frame: Any) -> None:
        self._confirms = True
        self._loop.stop()

    def _lose(self, error: Exception) -> None:
        self._lost = self._lost or error
        self._loop.stop()

    def _returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """No queue takes it; its confirmation, which says nothing of that, comes later."""
        for tag, call in self._unconfirmed.items():
            if tag not in self._refused and call["body"] == body:
                self._refused[tag] = UnroutableError([])
                break

    def _answered(self, frame: Any) -> None:
        answer = frame.method
        tags = [answer.delivery_tag]
        if answer.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= answer.delivery_tag]
        for tag in tags:
            del self._unconfirmed[tag]
            if isinstance(answer, pika.spec.Basic.Nack):
                self._refused[tag] = NackError([])
        if not self._unconfirmed:
            self._loop.stop()


class Publishers:
    """Those of one broker: each thread that publishes takes one, or makes one.

    Parameters:
      parameters: Returns where to connect to now, one server or several.
    """

    def __init__(self, parameters: Callable[[], Any]) -> None:
        self._parameters = parameters
        self._idle: deque[tuple[float, Publisher]] = deque()  # since when
        # A child must not write to its parent's connections.
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    @contextmanager
    def take(self) -> Iterator[Publisher]:
        publisher = self._kept() or self._make()
        yield publisher
        # After an interrupt nobody takes it again: confirmations are on their way, or half a message is out.
        if publisher.usable:
            self._idle.append((time.monotonic(), publisher))
        else:
            publisher.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()

    def _make(self) -> Publisher:
        parameters = self._parameters()
        return Publisher(parameters if isinstance(parameters, Sequence) else [parameters])

    def _kept(self) -> Publisher | None:
        kept, old = None, []
        with suppress(IndexError):  # other threads take some, too
            while time.monotonic() - self._idle[0][0] >= KEPT:
                old.append(self._idle.popleft()[1])
            kept = self._idle.pop()[1]
        for publisher in old:
            publisher.close()
        return kept

    def _forget(self) -> None:
        self._idle.clear()
