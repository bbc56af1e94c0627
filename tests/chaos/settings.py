"""Short times, so that everything that has to come back comes back while one looks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

HEARTBEAT = 1.0  # seconds
LEASE = 4 * HEARTBEAT
JOB_TIMEOUT = 5.0
BACKOFF = 1.0
INTERVAL = 0.3  # between two passes

#: Longer than a recovery takes that nothing else holds up: a crash, a lost message, the longest pause after an outage, retries.
BOUND = LEASE + 2 * (JOB_TIMEOUT + BACKOFF) + 10 + 5


def backoff(enqueue_count: int) -> timedelta:
    return timedelta(seconds=BACKOFF * min(enqueue_count, 4))


OPTIONS: dict[str, Any] = {
    "heartbeat_interval": int(HEARTBEAT * 1000),
    "job_timeout": int(JOB_TIMEOUT * 1000),
    "backoff": backoff,
}
