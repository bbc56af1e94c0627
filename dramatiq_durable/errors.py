"""Every error that this library raises."""

from __future__ import annotations

from dramatiq.middleware import Interrupt, MiddlewareError, SkipMessage


class DurableError(MiddlewareError):
    """Base class of every error this library raises.

    It extends Dramatiq's ``MiddlewareError`` because that is the only family
    a broker lets out of a ``before_*`` hook; anything else is logged and lost.
    """


class OptionError(DurableError, ValueError):
    """An option of the middleware, an actor or a message makes no sense."""


class AuditWriteFailed(DurableError):
    """The audit could not be written, so the message was not enqueued.

    When the database's answer to the commit was itself lost, the audit may be
    there all the same; then the job runs although ``send()`` raised.
    """

    def __init__(self, message_id: str, actor_name: str, error: Exception | None = None) -> None:
        why = "" if error is None else f" ({reason(error)})"
        super().__init__(
            f"could not write the audit of {actor_name!r} message {message_id}{why}; "
            "nothing was enqueued, so it can be sent again"
        )
        self.message_id = message_id
        self.actor_name = actor_name


class PayloadTooLarge(DurableError):
    """The encoded message is larger than its ``max_payload_size``; nothing was written."""

    def __init__(self, actor_name: str, size: int, limit: int) -> None:
        super().__init__(
            f"the message for {actor_name!r} has {size} bytes, max_payload_size is {limit}; "
            "nothing was enqueued: send a reference to the data, or raise the limit"
        )
        self.actor_name = actor_name
        self.size = size
        self.limit = limit


class DatabaseUnreachable(DurableError):
    """The database does not answer, or stays locked; nothing is known to be written."""


class AuditLocked(DatabaseUnreachable):
    """Another transaction holds the row locked for longer than we wait; nothing is written."""


class TableLocked(DatabaseUnreachable):
    """Other transactions, or another migration, use the table for longer than we wait."""


class AccessRefused(DurableError):
    """The database's user lacks a right; nothing is written."""


class SchemaMismatch(DurableError):
    """The table of audits is missing, or of another version of this library."""


class TableMissing(SchemaMismatch):
    """There is no table of audits."""


class MetricsNotServed(DurableError):
    """A monitor was told to serve metrics, and can't."""


class SignatureRefused(DurableError):
    """An audit is unsigned, was altered, or signed with another key; its payload is not decoded."""


class PayloadMismatch(DurableError):
    """The payload of an audit is another message than its columns say."""


class RequeueImmediately(SkipMessage):
    """Raised by an actor: run this job again, from the start, in the monitor's next pass.

    The job is not complete, and it has not failed: no retry, dead letter,
    callback, pipeline step or stored result comes of this run.
    """


class LeaseLost(Interrupt):
    """Raised in an actor whose audit is no longer its own.

    Its lease ran out and another worker may be running the job, or an operator
    cancelled it.  What this run still writes to the audit is refused.
    """


class Duplicate(SkipMessage):
    """A copy of a message whose audit is not this copy's to claim; the body is not run."""


def reason(error: BaseException) -> str:
    """An error in words fit for a log: the text of one that is not ours may hold arguments."""
    return str(error) if isinstance(error, DurableError) else type(error).__name__
