"""What a broker can tell of the copies that it was given."""

from __future__ import annotations

import importlib.util

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from .base import Answer, Presence
from .counted import CountedPresence, rabbitmq_counts, stub_counts
from .redis import RedisPresence

__all__ = ["Answer", "Presence", "presence_of"]


def presence_of(broker: dramatiq.Broker) -> Presence:
    """What *broker* can tell; of a broker of unknown kind, nothing."""
    if isinstance(broker, RedisBroker):
        return RedisPresence(broker)
    if isinstance(broker, StubBroker):
        return CountedPresence(broker, stub_counts(broker))
    if importlib.util.find_spec("pika") is not None:
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        if isinstance(broker, RabbitmqBroker):
            return CountedPresence(broker, rabbitmq_counts(broker))
    return Presence()
