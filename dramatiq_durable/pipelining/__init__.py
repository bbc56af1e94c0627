"""Many messages to the broker in one round trip, where it can."""

from __future__ import annotations

import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from .base import Call, Collected, Pipelining
from .redis import RedisPipelining

__all__ = ["Call", "Collected", "Pipelining", "pipelining_of"]


def pipelining_of(broker: dramatiq.Broker) -> Pipelining:
    """How many messages get to *broker*."""
    if isinstance(broker, RedisBroker):
        return RedisPipelining(broker)
    # Whoever has made one has imported it; who has none may lack pika.
    rabbitmq = sys.modules.get("dramatiq.brokers.rabbitmq")
    if rabbitmq is not None and isinstance(broker, rabbitmq.RabbitmqBroker):
        from .rabbitmq import RabbitmqPipelining

        return RabbitmqPipelining(broker)
    return Pipelining(broker)
