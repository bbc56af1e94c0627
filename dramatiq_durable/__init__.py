"""Dramatiq jobs that survive the loss of the broker."""

from .actor import durable_actor
from .backoff import cubic_backoff
from .current import current_audit
from .errors import AuditWriteFailed, DurableError, LeaseLost, RequeueImmediately
from .middleware import DurableMiddleware
from .models import Audit
from .monitor import Monitor

__all__ = [
    "Audit",
    "AuditWriteFailed",
    "DurableError",
    "DurableMiddleware",
    "LeaseLost",
    "Monitor",
    "RequeueImmediately",
    "cubic_backoff",
    "current_audit",
    "durable_actor",
]
