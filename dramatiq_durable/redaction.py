"""Arguments of durable messages are secrets: they stay out of Dramatiq's own log lines."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy

from .messages import epoch_of


class Redaction(logging.Filter):
    """Puts actor and message_id in the place of a durable message among a record's arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_redacted, record.args))
        return True


def redact_worker_logs(queue_name: str) -> None:
    """Filter what Dramatiq's threads log of the messages on *queue_name*."""
    for thread in ("WorkerThread", f"ConsumerThread({queue_name})"):
        logger = logging.getLogger(f"dramatiq.worker.{thread}")
        if not any(isinstance(each, Redaction) for each in logger.filters):
            logger.addFilter(Redaction())


def redact_actor_logs(actor: dramatiq.Actor[Any, Any]) -> None:
    """Filter what Dramatiq logs at DEBUG when the body of *actor* is called."""
    if _drop_arguments not in actor.logger.filters:
        actor.logger.addFilter(_drop_arguments)


def _drop_arguments(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith("Received args="):
        record.msg, record.args = "Received its arguments.", ()
    return True


def _redacted(argument: Any) -> Any:
    if not isinstance(argument, (MessageProxy, dramatiq.Message)) or epoch_of(argument) is None:
        return argument
    return f"{argument.actor_name} {argument.message_id}"
