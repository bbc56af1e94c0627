"""Many messages to RabbitMQ, and then one wait for the confirmations of all."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dramatiq.brokers.rabbitmq import MAX_ENQUEUE_ATTEMPTS, RabbitmqBroker
from dramatiq.common import current_millis, dq_name, q_name
from dramatiq.errors import ConnectionClosed
from pika.exceptions import ChannelClosedByBroker, ConnectionBlockedTimeout, UnroutableError

from ..underway import Underway
from .base import Call, Collected, Message, Pipelining, Push
from .publisher import Publishers

#: What AMQP calls it when a message does not fit.
PRECONDITION_FAILED = 406


class RabbitmqPipelining(Pipelining):
    """Does what a RabbitmqBroker does in its ``enqueue``, but for the wait of each message."""

    def __init__(self, broker: RabbitmqBroker) -> None:
        super().__init__(broker)
        self._rabbitmq = broker
        self._publishers = Publishers(lambda: broker.parameters)
        connections: set[Any] = broker.connections
        connections.add(self._publishers)  # it closes them when it is closed

    @property
    def collects(self) -> bool:
        """Not without confirmations, which nobody waits for, nor when a subclass enqueues or connects in a way of its own."""
        kind: Any = type(self._rabbitmq)
        return (
            self._rabbitmq.confirm_delivery
            and getattr(self.push, "__func__", None) is RabbitmqBroker.enqueue
            and kind.connection is RabbitmqBroker.connection
            and kind.channel is RabbitmqBroker.channel
        )

    def collect(self, push: Callable[[Push], object], of: Underway | None = None) -> Collected:
        collected = Collected(of)

        def enqueue(message: Message, *, delay: int | None = None) -> Message:
            queue_name = message.queue_name
            if delay is not None:
                eta = current_millis() + delay
                message = message.copy(queue_name=dq_name(queue_name), options={"eta": eta})
            self._rabbitmq.declare_queue(queue_name, ensure=True)
            self._broker.emit_before("enqueue", message, delay)
            priority = message.options.get("broker_priority")
            collected.calls.append(
                {"queue_name": message.queue_name, "body": message.encode(), "priority": priority}
            )
            collected.after.append((message, delay))
            return message

        push(enqueue)
        return collected

    def send(self, collected: Sequence[Sequence[Call]]) -> list[Exception | None]:
        waiting = {number: call for number, calls in enumerate(collected) for call in calls}
        errors: dict[int, Exception | None] = dict.fromkeys(range(len(collected)))
        for _ in range(MAX_ENQUEUE_ATTEMPTS):
            if waiting:
                refused = self._attempt_all(waiting)
                errors |= {number: refused.get(number) for number in waiting}
                waiting = _to_be_tried_again(waiting, refused)
        return [_as_of_dramatiq(error) for error in errors.values()]

    def _attempt_all(self, calls: Mapping[int, Call]) -> dict[int, Exception]:
        """Why some are not confirmed."""
        try:
            for queue_name in {q_name(call["queue_name"]) for call in calls.values()}:
                self._rabbitmq.declare_queue(queue_name, ensure=True)
            with self._publishers.take() as publisher:
                errors = publisher.publish(calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known of any
            return dict.fromkeys(calls, error)
        for number, refusal in errors.items():
            if isinstance(refusal, UnroutableError):
                # Its queue is gone; it is declared before the next attempt.
                self._rabbitmq.queues_pending.add(q_name(calls[number]["queue_name"]))
        return errors


def _to_be_tried_again(
    calls: Mapping[int, Call], refused: Mapping[int, Exception]
) -> dict[int, Call]:
    again = {
        number: calls[number]
        for number, error in refused.items()
        # Where RabbitMQ has no room, each attempt waits as long, and may arrive in the end.
        if not isinstance(error, (struct.error, ConnectionBlockedTimeout))
    }
    too_large = [number for number in again if _is_of_one(refused[number])]
    if too_large:
        del again[max(too_large, key=lambda number: len(calls[number]["body"]))]
    return again


def _is_of_one(error: Exception) -> bool:
    """Whether RabbitMQ has closed the channel at a message that is larger than it takes, without a word of the others."""
    return isinstance(error, ChannelClosedByBroker) and error.reply_code == PRECONDITION_FAILED


def _as_of_dramatiq(error: Exception | None) -> Exception | None:
    """As the broker's ``enqueue`` raises it."""
    return error if error is None or isinstance(error, struct.error) else ConnectionClosed(error)
