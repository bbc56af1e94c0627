"""What we write into the options of a message, and the message that is stored and sent again."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any, TypeAlias

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.common import q_name

from .errors import PayloadMismatch
from .options import Policy
from .store import NewAudit, Stale

AnyMessage: TypeAlias = "dramatiq.Message[Any] | MessageProxy"

#: The epoch that a copy was sent for; a message that carries one has its audit.
EPOCH = "durable_epoch"
#: The message that the epoch is of: a copy under a new message_id is a message of its own.
MESSAGE_ID = "durable_message_id"
#: When the job was first meant to start, in milliseconds by the sender's clock.
SCHEDULED_AT = "durable_scheduled_at"
#: In a copy sent by a monitor: when that was, in microseconds by the database's clock.
ENQUEUED_AT = "durable_enqueued_at"
#: The sender's own: while an audit of the actor with this key is open, no other is sent.
UNIQUE_KEY = "unique_key"
#: In a copy sent by Retries: the claim whose holder gave the job up.
CLAIM_ID = "durable_claim_id"

# What belongs to one copy, not to the message.
_OF_A_COPY = {
    "eta", "redis_message_id", "retries", "traceback", "requeue_timestamp", CLAIM_ID, ENQUEUED_AT,
}  # fmt: skip


def epoch_of(message: AnyMessage) -> int | None:
    """The epoch of a copy; None when it was enqueued without an audit."""
    if message.options.get(MESSAGE_ID) != message.message_id:
        return None
    epoch: int | None = message.options.get(EPOCH)
    return epoch


def unique_key_of(message: AnyMessage) -> str | None:
    """The ``unique_key`` of *message*; None when it has none, or one that no check has seen."""
    key = message.options.get(UNIQUE_KEY)
    return key if isinstance(key, str) and key else None


def stamped(message: AnyMessage, **stamps: Any) -> dramatiq.Message[Any]:
    """A copy of *message* with *stamps* among its options."""
    copy: dramatiq.Message[Any] = message.copy(options=stamps)
    return copy


def normalised(message: AnyMessage) -> dramatiq.Message[Any]:
    """The message as it is stored: without anything that belongs to this copy alone."""
    return dramatiq.Message(**_normalised(message))


def _normalised(message: AnyMessage) -> dict[str, Any]:
    fields: dict[str, Any] = message.asdict()
    fields["queue_name"] = q_name(message.queue_name)
    fields["options"] = {k: v for k, v in message.options.items() if k not in _OF_A_COPY}
    return fields


def new_audit(message: AnyMessage, policy: Policy, delay: timedelta) -> NewAudit:
    """What a new audit says of *message*, which is meant to start after *delay*."""
    stored = _normalised(message)
    return NewAudit(
        message_id=message.message_id,
        actor_name=message.actor_name,
        queue_name=stored["queue_name"],
        payload=dramatiq.get_encoder().encode(stored),
        delay=delay,
        job_timeout=timedelta(milliseconds=policy.job_timeout),
        lease=timedelta(milliseconds=policy.lease),
        backoff=policy.wait(1),
        broker_message_id=message.options.get("redis_message_id"),
        unique_key=unique_key_of(message),
    )


def copy_of(stale: Stale, broker: dramatiq.Broker) -> dramatiq.Message[Any]:
    """The message of an audit as it has to be sent now, but for :data:`ENQUEUED_AT`.

    Raises:
      dramatiq.DecodeError: The payload is not a message.
      PayloadMismatch: It is a message, but not that of the audit.
    """
    message = dramatiq.Message.decode(stale.payload)
    for name in ("message_id", "actor_name", "queue_name"):
        if getattr(message, name) != getattr(stale, name):
            raise PayloadMismatch(f"the payload has another {name} than the audit")
    return dataclasses.replace(
        message,
        queue_name=_queue_of(message, broker),
        options={**message.options, EPOCH: stale.epoch, MESSAGE_ID: message.message_id},
        message_timestamp=message.message_timestamp + _postponed(message, stale),
    )


def _queue_of(message: dramatiq.Message[Any], broker: dramatiq.Broker) -> str:
    # A queue that is not declared any more has no consumers; the actor has moved on.
    actor = broker.actors.get(message.actor_name)
    if actor is None or message.queue_name in broker.queues:
        return message.queue_name
    return actor.queue_name


def _postponed(message: dramatiq.Message[Any], stale: Stale) -> int:
    # A requeued or retried job starts anew, so its max_age does too.  Each
    # difference is of one clock; how far the two clocks are apart drops out.
    meant = message.options.get(SCHEDULED_AT, message.message_timestamp) - message.message_timestamp
    now_meant = (stale.scheduled_at - stale.created_at) // timedelta(milliseconds=1)
    shift: int = now_meant - meant
    return shift if shift >= 1_000 else 0
