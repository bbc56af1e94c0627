"""The monitors that were seen, for status and doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..errors import AccessRefused, AuditLocked, SchemaMismatch
from ..middleware import DurableMiddleware
from ..store import Seen
from .printing import iso


def monitors_seen(middleware: DurableMiddleware) -> list[Seen] | None:
    """Those that were seen last first; None when their table is missing, locked, or may not be read."""
    try:
        return middleware.monitors.seen()
    except (SchemaMismatch, AccessRefused, AuditLocked):
        return None


def monitor_as_dict(seen: Seen) -> dict[str, Any]:
    columns = asdict(seen.monitor)
    columns["interval"] = seen.monitor.interval.total_seconds()
    return {
        **columns,
        "started_at": iso(seen.started_at),
        "seen_seconds_ago": seen.ago.total_seconds(),
        "stopped": seen.stopped,
    }
