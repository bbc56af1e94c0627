"""What a broker raises when it takes no message at all; some do so at one that they do not like."""

from __future__ import annotations

import sys

import redis
from dramatiq.errors import BrokerConnectionError

_OUTAGES = (BrokerConnectionError, redis.RedisError, OSError)


class NotTried(BrokerConnectionError):
    """The broker seemed to be down, so it was not asked to take this message, too."""

    def __init__(self) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            "not tried, because the broker did not take one before it"
        )


def is_outage(error: object) -> bool:
    """Whether the broker may be down."""
    # When nobody answers a handshake pika raises none of its AMQPErrors, so that Dramatiq does not know it.
    workflow = sys.modules.get("pika.adapters.utils.connection_workflow")
    return isinstance(error, _OUTAGES) or (
        workflow is not None and isinstance(error, workflow.AMQPConnectorException)
    )
