"""What has to be known of a queue that is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PLAIN = "plain Dramatiq"


@dataclass(frozen=True)
class Peer:
    """A queue with one job, which calls :func:`tests.benchmarks.job.job`.

    *source* is its ``app.py``.  It finds its servers in ``BROKER_URL`` and ``DATABASE_URL``, and defines
    ``setup()``, which a process that sends calls first, ``send(count)``, and perhaps ``send_many(count)``, for
    many at once, and ``load(count)``, a quicker way to have so many jobs wait.
    """

    name: str
    source: str
    worker: tuple[str, ...] = ()  # what follows ``python -m``
    database: str = "postgres"  # or "mariadb", "sqlite"; "" when it has none
    open: str = (
        ""  # a SELECT that says 0 when all jobs are recorded as done; "" where nothing is recorded
    )
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: str = PLAIN  # what its worker is compared with
    jobs: int = 3_000  # that a worker does in a round


def dramatiq_worker(threads: int = 8) -> tuple[str, ...]:
    return ("dramatiq", "app:broker", "-p", "1", "-t", str(threads))


def prefetching(prefetch: int | None) -> str:
    """How it is called where Dramatiq's workers fetch so many messages in advance; None: its default."""
    return "" if prefetch is None else f", prefetch {prefetch}"


def prefetch_environment(prefetch: int | None) -> dict[str, str]:
    return {} if prefetch is None else {"dramatiq_queue_prefetch": str(prefetch)}
