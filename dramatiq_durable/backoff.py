"""How long the monitor waits before it enqueues a job again."""

from __future__ import annotations

from datetime import timedelta


def cubic_backoff(enqueue_count: int) -> timedelta:
    """How long after its timeout an open audit is recovered.

    The wait is ``enqueue_count ** 3`` minutes (1, 8, 27, 64, 125, ...), the
    schedule of resque-durable's ``QueueAuditMethods#delay``.  With the default
    timeout of 10 minutes a message that is lost every time is enqueued again
    8 times in its first day and 10 before the default expiration (without one,
    13 times in a week, 19 in 30 days).

    Parameters:
      enqueue_count: How often the job has been enqueued, 1 or more.

    Raises:
      ValueError: If *enqueue_count* is below 1; such an audit was never sent.
    """
    if enqueue_count < 1:
        raise ValueError(f"enqueue_count must be 1 or more, not {enqueue_count}")
    return timedelta(minutes=enqueue_count**3)
