"""The audit: its states, columns and field types."""

from __future__ import annotations

from typing import Any

import peewee

PENDING = "pending"
RUNNING = "running"
COMPLETED = "completed"
DEAD = "dead"
CANCELLED = "cancelled"

OPEN = (PENDING, RUNNING)
FINISHED = (COMPLETED, DEAD, CANCELLED)
STATES = OPEN + FINISHED

NAME_LENGTH = 255


class MomentField(peewee.TimestampField):
    """A moment in UTC by the database's clock, to the microsecond; NULL when it has not come."""

    def __init__(self) -> None:
        super().__init__(utc=True, resolution=10**6, null=True, default=None)


class _Hidden(bytes):
    """What Peewee's log of statements and their parameters does not show."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class PayloadField(peewee.BlobField):
    """Bytes of any length; BLOB holds no more than 64 KB on MySQL and MariaDB."""

    def db_value(self, value: Any) -> Any:
        # Every driver takes bytes; what Peewee's makes of them, the application's may not know.
        return _Hidden(value)

    def ddl_datatype(self, ctx: Any) -> peewee.SQL:
        native: peewee.SQL = super().ddl_datatype(ctx)
        return peewee.SQL("LONGBLOB") if native.sql == "BLOB" else native


def _name(**options: Any) -> peewee.CharField:
    return peewee.CharField(max_length=NAME_LENGTH, **options)


class Audit(peewee.Model):
    """The record of one durable message: a row of ``durable_audits``.

    Abstract: each middleware binds a subclass to its database.  Subclass it
    and name a ``database`` (and a ``table_name``) in ``Meta`` to keep the audits of
    some actors elsewhere; pass that class as the actor option ``audit_model``.

    Only :class:`dramatiq_durable.store.Store` writes it.  Columns may be added by
    a subclass if they are nullable or have a default in the database.
    """

    id = peewee.BigAutoField()
    namespace = _name()
    message_id = _name(unique=True)
    actor_name = _name()
    queue_name = _name()
    state = _name(default=PENDING)
    epoch = peewee.BigIntegerField(default=0)
    claim_id = _name(null=True)

    due_at = MomentField()
    scheduled_at = MomentField()
    created_at = MomentField()
    enqueued_at = MomentField()
    started_at = MomentField()
    finished_at = MomentField()

    enqueue_count = peewee.IntegerField(default=0)
    start_count = peewee.IntegerField(default=0)
    crash_count = peewee.IntegerField(default=0)
    failure_count = peewee.IntegerField(default=0)
    requeue_count = peewee.IntegerField(default=0)

    # Microseconds, so that the database can add them to its clock.
    job_timeout = peewee.BigIntegerField()
    lease = peewee.BigIntegerField()
    backoff = peewee.BigIntegerField()

    broker_message_id = _name(null=True)
    worker = _name(null=True)
    last_error = peewee.TextField(null=True)
    payload = PayloadField()
    signature = peewee.CharField(max_length=64, null=True)
    unique_key = peewee.CharField(max_length=64, null=True, unique=True)

    class Meta:
        legacy_table_names = False

        def table_function(model: Any) -> str:  # noqa: N805 - peewee calls it with the model
            return "durable_audits"


class SeenMonitor(peewee.Model):
    """What a monitor says of itself: a row of ``durable_monitors``, beside the audits.

    Nothing that a monitor does depends on it.  The counts are those since it started.
    """

    id = peewee.CharField(max_length=32, primary_key=True)
    namespace = _name()
    host = _name()
    pid = peewee.IntegerField()
    version = _name()
    interval = peewee.BigIntegerField()  # microseconds between two passes

    started_at = MomentField()
    seen_at = MomentField()
    stopped_at = MomentField()

    recovered = peewee.BigIntegerField(default=0)
    dead = peewee.BigIntegerField(default=0)
    deleted = peewee.BigIntegerField(default=0)
    failed = peewee.BigIntegerField(default=0)
    outage = peewee.BooleanField(default=False)  # the broker took no messages in its last pass
