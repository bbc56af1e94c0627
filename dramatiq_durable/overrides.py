"""What an application may override in a subclass of the middleware."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dramatiq

from .errors import AuditWriteFailed


class Overrides:
    """What is done where the application may know better."""

    logger: logging.Logger

    def audit_failed(
        self, broker: dramatiq.Broker, message: dramatiq.Message[Any], error: Exception
    ) -> None:
        """The audit of *message* could not be written.

        Default: raise :class:`AuditWriteFailed`, so that nothing is enqueued.  An
        override that returns lets the message go out without its audit.
        """
        raise AuditWriteFailed(message.message_id, message.actor_name, error) from error

    def enqueue_failed(
        self, broker: dramatiq.Broker, message: dramatiq.Message[Any], error: Exception
    ) -> None:
        """The broker did not take *message*, whose audit is written.

        Default: log it; the monitor sends it.  What an override raises reaches the sender.
        """
        self.logger.warning(
            "The broker did not take message %s of actor %r (%s); the monitor will send it.",
            message.message_id,
            message.actor_name,
            type(error).__name__,
        )

    def audit_columns(
        self, broker: dramatiq.Broker, message: dramatiq.Message[Any]
    ) -> Mapping[str, Any]:
        """Values for the columns that a subclass of :class:`Audit` adds, by name.  Default: none."""
        return {}
