"""What senders and workers count, beside the metrics of Dramatiq's own Prometheus middleware."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dramatiq
from dramatiq.logging import get_logger

if TYPE_CHECKING:
    from prometheus_client import Counter

logger = get_logger(__name__)

COLLISIONS = "dramatiq_durable_collisions"
UNAUDITED = "dramatiq_durable_unaudited"
LOST_LEASES = "dramatiq_durable_lost_leases"

#: Where the processes of a program put what they count, for one of them to show.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_made: dict[str, Counter] = {}
_making = threading.Lock()


def are_exposed(broker: dramatiq.Broker) -> bool:
    """Whether somebody shows what is counted here.

    Dramatiq's middleware names the directory when its process boots.  Until then prometheus_client
    must not be imported: it would keep everything, Dramatiq's metrics too, to this process.
    """
    module = sys.modules.get("dramatiq.middleware.prometheus")
    return (
        module is not None
        and DIRECTORY in os.environ
        and any(isinstance(each, module.Prometheus) for each in broker.middleware)
    )


def begin(broker: dramatiq.Broker, names: Iterable[tuple[str, str]]) -> None:
    """Have all of them there with zero, those of each queue and actor too: from nothing to one is no increase."""
    for name in (UNAUDITED, LOST_LEASES):
        _add(broker, name, (), 0)
    for labels in names:
        _add(broker, COLLISIONS, labels, 0)


def count_collision(broker: dramatiq.Broker, queue_name: str, actor_name: str) -> None:
    """A copy was skipped, for its audit is finished, or another copy's."""
    _add(broker, COLLISIONS, (queue_name, actor_name))


def count_unaudited(broker: dramatiq.Broker, messages: int = 1) -> None:
    """``audit_failed()`` has let so many *messages* go without an audit."""
    _add(broker, UNAUDITED, amount=messages)


def count_lost_lease(broker: dramatiq.Broker) -> None:
    """The audit of a job that runs here was taken away."""
    _add(broker, LOST_LEASES)


def _add(broker: dramatiq.Broker, name: str, labels: tuple[str, ...] = (), amount: int = 1) -> None:
    if not are_exposed(broker):
        return
    try:
        counter = _counters()[name]
        (counter.labels(*labels) if labels else counter).inc(amount)
    except Exception as error:
        # The disk may be full; no job is to fail because it is not counted.
        logger.warning("Nothing is added to %s: %s.", name, type(error).__name__)


def _counters() -> Mapping[str, Counter]:
    with _making:
        if not _made:
            from prometheus_client import Counter

            texts = {
                COLLISIONS: "Copies that were skipped: their audits are finished, or others' to claim.",
                UNAUDITED: "Messages that audit_failed() let go without an audit.",
                LOST_LEASES: "Jobs whose audit was taken away while they ran.",
            }
            labels = {COLLISIONS: ("queue_name", "actor_name")}
            # Two of one name in a process would overwrite each other's numbers.
            for name, text in texts.items():
                _made[name] = Counter(name, text, labels.get(name, ()), registry=None)
        return _made
