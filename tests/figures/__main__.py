"""``python -m tests.figures [NAME ...]``: measure, and print a line for each figure."""

from __future__ import annotations

import sys
import time

import redis

from tests.support.waiting import eventually

from .stand import Stand, stand

LOAD = 40  # jobs per second, of some 50 that the worker can do
OFF = 10  # seconds without consumers, in job_timeouts of a second


def killed() -> str:
    """A worker that runs 8 jobs and has fetched 8 more dies; default options, on an idle Redis."""
    with stand("redis") as here:
        (here.app.folder / "gate").touch()
        monitors = [here.app.monitor() for _ in range(2)]
        for monitor in monitors:
            monitor.wait_for("Monitoring")
        worker = here.app.worker("-t", "8")
        here.app.python("import app\nfor number in range(16): app.gated.send(number)")
        eventually(lambda: len(here.notes("start")) == 8)
        client = redis.Redis.from_url(here.broker.url)
        eventually(lambda: client.llen("dramatiq:default") == 0)
        worker.kill()
        began = time.monotonic()
        (here.app.folder / "gate").unlink()
        here.app.worker("-t", "8")
        eventually(lambda: len(here.notes("end")) >= 8, timeout=300)
        half = time.monotonic() - began
        eventually(lambda: len(here.notes("end")) >= 16, timeout=300)
        return f"8 after {half:.1f} s, 16 after {time.monotonic() - began:.1f} s"


def wiped() -> str:
    """10,000 jobs wait in Redis, which is wiped; default options."""
    with stand("redis") as here:
        monitors = [here.app.monitor() for _ in range(2)]
        for monitor in monitors:
            monitor.wait_for("Monitoring")
        here.app.python("import app\nfor number in range(10_000): app.gated.send(number)")
        client = redis.Redis.from_url(here.broker.url)
        eventually(lambda: client.exists("dramatiq:__durable_canary__"))
        client.flushall()
        began = time.monotonic()
        eventually(lambda: client.llen("dramatiq:default") >= 10_000, timeout=300)
        took = time.monotonic() - began
        return f"{client.llen('dramatiq:default')} are back after {took:.1f} s"


def backlog(broker: str, **environment: str) -> str:
    """Nobody consumes for ten job_timeouts, at four fifths of the load; then somebody does."""
    alone, _ = _drained(broker, 0, environment)
    watched, duplicates = _drained(broker, 2, environment)
    return (
        f"drained in {watched:.0f} s, without a monitor in {alone:.0f} s "
        f"({watched / alone:.2f}); sent again {duplicates:.2%}"
    )


def _drained(broker: str, monitors: int, environment: dict[str, str]) -> tuple[float, float]:
    with stand(broker, **environment) as here:
        for _ in range(monitors):
            here.app.monitor("--interval", "0.2").wait_for("Monitoring")
        worker = here.app.worker("-t", "4")
        here.app.process(PRODUCER.format(gap=1 / LOAD))
        eventually(lambda: here.count("completed") > 3 * LOAD, timeout=60)
        worker.kill()
        eventually(lambda: here.count("pending") > OFF * LOAD, timeout=60)
        here.app.worker("-t", "4")
        began = time.monotonic()
        eventually(lambda: _is_drained(here), timeout=600)
        took = time.monotonic() - began
        audits = here.store.list_audits()
        return took, sum(audit.enqueue_count - 1 for audit in audits) / len(audits)


PRODUCER = """
import time, app
due = time.monotonic()
number = 0
while True:
    app.short.send(number)
    number += 1
    due += {gap}
    time.sleep(max(due - time.monotonic(), 0))
"""


def _is_drained(here: Stand) -> bool:
    time.sleep(0.5)  # or the question is the load
    return here.count("pending") < LOAD / 4


FIGURES = {
    "killed": killed,
    "wiped": wiped,
    "backlog-redis": lambda: backlog("redis"),
    "backlog-rabbitmq": lambda: backlog("rabbitmq"),
    "backlog-unknown": lambda: backlog("redis", UNKNOWN="1"),
}


def main(names: list[str]) -> None:
    for name in names or FIGURES:
        print(f"{name}: {FIGURES[name]()}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
