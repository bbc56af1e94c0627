"""A million lost jobs, sent again by one monitor process: its time, its memory, and the senders beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.app import Process

from . import databases
from .application import Application, standing
from .beside import send_for
from .monitors import UNBOUNDED
from .rows import fill

LOST = 1_000_000

#: After this share of them the memory is read the first time.
EARLY = 0.05

#: So long somebody sends, before it and in the middle of it.
SECONDS = 5.0


def run(lost: int = LOST) -> Iterator[str]:
    for kind in databases.KINDS:
        with (
            databases.redis() as redis_url,
            standing(kind, redis_url) as (application, processes),
        ):
            alone = send_for(application, SECONDS)
            fill(application.durable.store, application.send(), lost=lost)
            application.broker.flush_all()
            began = time.monotonic()
            monitor = processes.monitor("--max-rate", str(UNBOUNDED))
            _wait(application, monitor, lost * EARLY)
            early = _memory(monitor, "VmRSS")
            _wait(application, monitor, lost / 2)
            beside = send_for(application, SECONDS)
            _wait(application, monitor, lost + beside)
            took = time.monotonic() - began
            yield (
                f"{kind}: {lost:,} lost jobs in {took:.0f} s, {lost / took:,.0f} per second; "
                f"the monitor had {early:.0f} MB after {EARLY:.0%} of them, {_memory(monitor, 'VmRSS'):.0f} MB "
                f"at the end, {_memory(monitor, 'VmHWM'):.0f} MB at most; "
                f"one process sent {alone / SECONDS:,.0f} jobs per second before, {beside / SECONDS:,.0f} meanwhile.  It said:"
            )
            yield "\n".join(f"    {line}" for line in monitor.output().splitlines()[-8:])


def _wait(application: Application, monitor: Process, messages: float) -> None:
    """Until so many are in Redis."""
    client: Any = application.broker.client
    while client.llen("dramatiq:default") < messages:
        assert monitor.returncode is None, monitor.output()
        time.sleep(0.2)


def _memory(process: Process, what: str) -> float:
    """In megabytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{what}:")]
    return int(kilobytes) / 1024
