"""Monitors in processes of their own, which make a pass each time they are told to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.app import App
from tests.support.waiting import eventually

#: Messages per second that a monitor may send.
UNBOUNDED = 1_000_000

_MONITOR = """
import itertools, time
from pathlib import Path
from dramatiq_durable import Monitor
from app import broker

monitor = Monitor(broker, max_rate={max_rate})
monitor.run_once()
for number in itertools.count():
    go, done = Path(f"go-{name}-{{number}}"), Path(f"done-{name}-{{number}}")
    print(f"waits for {{go}}", flush=True)
    while not go.exists():
        time.sleep(0.001)
    began = time.monotonic()
    did = monitor.run_once()
    done.with_suffix(".new").write_text(f"{{began}} {{time.monotonic()}} {{did.recovered}} {{did.deleted}}")
    done.with_suffix(".new").rename(done)
"""


@dataclass(frozen=True)
class Done:
    """What a pass did, between two moments of the monotonic clock."""

    began: float
    ended: float
    recovered: int
    deleted: int


class Monitors:
    def __init__(self, app: App, count: int) -> None:
        self._app = app
        programs = [_MONITOR.format(name=name, max_rate=UNBOUNDED) for name in range(count)]
        self._processes = [app.process(program) for program in programs]
        self._passes = [0] * count
        for name in range(count):
            self._wait(name)

    def begin(self, count: int) -> list[Path]:
        """Let the first *count* begin a pass at once; where they will say that it is done."""
        for name in range(count):
            self._wait(name)
        for name in range(count):
            (self._app.folder / f"go-{name}-{self._passes[name]}").touch()
        started = [self._app.folder / f"done-{name}-{self._passes[name]}" for name in range(count)]
        self._passes = [n + (name < count) for name, n in enumerate(self._passes)]
        return started

    def end(self, started: list[Path]) -> list[Done]:
        """What those have done; they have ten minutes."""
        return [self._done(path) for path in started]

    def _wait(self, name: int) -> None:
        self._processes[name].wait_for(f"waits for go-{name}-{self._passes[name]}\n")

    def _done(self, path: Path) -> Done:
        eventually(path.exists, timeout=600, message=f"{path} is not there")
        began, ended, recovered, deleted = path.read_text().split()
        return Done(float(began), float(ended), int(recovered), int(deleted))
