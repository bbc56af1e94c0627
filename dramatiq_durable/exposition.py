"""What Prometheus is told of a monitor and of the audits that it looks after, over HTTP."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from dramatiq.logging import get_logger

from .errors import MetricsNotServed, OptionError
from .middleware import DurableMiddleware
from .models import STATES
from .passes import BUCKETS, Passes
from .readings import Reading, Readings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK = "127.0.0.1"

#: What is counted by queue and actor.
COUNTED = {
    "recovered": "Messages that this monitor has enqueued again.",
    "held": "Times that it found a stale audit whose message still waits in the broker.",
    "dead": "Jobs that it has given up.",
    "failed": "Messages that could not be sent, and are set aside for their backoff.",
}

LABELS = ("queue_name", "actor_name")


class Exposition:
    """The metrics of a monitor.

    They are read from the databases when somebody asks for them, in other threads than the
    monitor's, and through a connection that its passes do not use.

    Parameters:
      port: Where they are served while the monitor runs; None: nowhere.
      host: The address to listen on.

    Raises:
      OptionError: *port* is none.
    """

    def __init__(
        self, middleware: DurableMiddleware, port: int | None = None, host: str = LOOPBACK
    ) -> None:
        if port is not None and not 0 < port < 65_536:
            raise OptionError(f"Monitor: prometheus_port must be between 1 and 65535, not {port!r}")
        self.logger = get_logger(__name__, type(self))
        self.passes = Passes()
        self._middleware = middleware
        self._readings = Readings()
        self._port = port
        self._host = host

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Serve them until the block ends.

        Raises:
          MetricsNotServed: prometheus_client is not installed, or cannot listen there.
        """
        if self._port is None:
            yield
            return
        server = self._start(self._port)
        self.logger.info("Metrics are served on port %d of %s.", self._port, self._host)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def _start(self, port: int) -> Any:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise MetricsNotServed(
                "metrics need prometheus_client; run `pip install 'dramatiq-durable[prometheus]'`"
            ) from None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            server, _ = start_http_server(port, self._host, registry)
        except OSError as error:
            raise MetricsNotServed(
                f"metrics cannot be served on port {port} of {self._host!r}: {error.strerror}"
            ) from None
        return server

    def describe(self) -> list[Metric]:
        """Nothing: prometheus_client would collect to find out the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._of_passes()
        yield from self._of_audits()

    def _of_passes(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        sums = self.passes.sums()
        # What has not happened yet is zero: from nothing to one is no increase.
        counts = Counter(
            {(what, *names): 0 for what in COUNTED for names in self._middleware.durable_actors()}
        )
        for (what, queue_name, actor_name), count in sums.by_actor.items():
            counts[what, _text(queue_name), _text(actor_name)] += count
        for what, text in COUNTED.items():
            family = CounterMetricFamily(f"dramatiq_durable_{what}", text, labels=LABELS)
            for (counted, *names), count in sorted(counts.items()):
                if counted == what:
                    family.add_metric(names, count)
            yield family
        yield CounterMetricFamily(
            "dramatiq_durable_deleted",
            "Finished audits that this monitor has deleted.",
            sums.deleted,
        )
        yield CounterMetricFamily(
            "dramatiq_durable_failed_passes",
            "Passes that met an error of a database, or one that nobody expects.",
            sums.failed_passes,
        )
        durations = HistogramMetricFamily(
            "dramatiq_durable_pass_duration_seconds", "How long passes took.", labels=()
        )
        bounds = ["+Inf" if bound == float("inf") else str(bound) for bound in BUCKETS]
        durations.add_metric(
            (), list(zip(bounds, accumulate(sums.durations), strict=True)), sums.seconds
        )
        yield durations
        yield GaugeMetricFamily(
            "dramatiq_durable_last_good_pass_timestamp_seconds",
            "When all databases were served last, since 1970; 0 for never.",
            sums.good_at or 0,
        )
        yield GaugeMetricFamily(
            "dramatiq_durable_outage",
            "1 while the broker takes no messages, as the last pass has found.",
            sums.outage,
        )

    def _of_audits(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        answers = self._readings.latest(self._middleware.stores())
        readings = [answer for answer in answers if answer is not None]
        yield GaugeMetricFamily(
            "dramatiq_durable_database_up",
            "0 while the audits of a database are missing here, for it does not answer.",
            len(readings) == len(answers),
        )
        if not readings:
            return
        by_state, stale = _summed(readings)
        audits = GaugeMetricFamily(
            "dramatiq_durable_audits", "Audits that there are.", labels=("state", *LABELS)
        )
        stale_audits = GaugeMetricFamily(
            "dramatiq_durable_stale_audits", "Open audits past their due_at.", labels=LABELS
        )
        for names in sorted({*self._middleware.durable_actors(), *stale}):
            for state in STATES:
                key = (state, *names)
                audits.add_metric(key, by_state[key])
            stale_audits.add_metric(names, stale[names])
        yield audits
        yield stale_audits
        yield GaugeMetricFamily(
            "dramatiq_durable_oldest_stale_seconds",
            "How long ago the oldest stale audit became due; 0 when there is none.",
            max(each.oldest_stale for each in readings) / timedelta(seconds=1),
        )


def _summed(
    readings: list[Reading],
) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str]]]:
    """How many audits there are by state, queue and actor, and how many are stale by queue and actor."""
    by_state: Counter[tuple[str, str, str]] = Counter()
    stale: Counter[tuple[str, str]] = Counter()
    for tally in (tally for reading in readings for tally in reading.tallies):
        queue_name, actor_name = _text(tally.queue_name), _text(tally.actor_name)
        by_state[tally.state, queue_name, actor_name] += tally.count
        stale[queue_name, actor_name] += tally.stale
    return by_state, stale


def _text(name: object) -> str:
    """What SQLite has in a column of texts may be anything, and some of it cannot be encoded."""
    return str(name).encode("utf-8", "replace").decode()
