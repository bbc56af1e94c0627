"""One queue on the servers: its sender, and its workers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.app import App, Process

from .cpu import cpu_seconds
from .job import FIRST, LAST
from .peers.peer import Peer
from .servers import Database, Servers

LONGEST = 120  # seconds that a run may take
PAUSE = 0.002  # seconds between two looks


@dataclass(frozen=True)
class Measured:
    per_second: float
    client: float  # microseconds of CPU per job, of the process that sends or works
    database: float | None  # the same, of the database's server, if it has one


class Sender:
    """A process that sends when it is told to."""

    PROGRAM = """
import json, sys, time, app
app.setup()
for line in sys.stdin:
    name, count = json.loads(line)
    began, used = time.perf_counter(), time.process_time()
    getattr(app, name, app.send)(count)
    print("measured", json.dumps([time.perf_counter() - began, time.process_time() - used]), flush=True)
"""

    def __init__(self, app: App) -> None:
        self._errors = open(app.folder / "sender-errors", "w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM],
            cwd=app.folder,
            env=app.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def do(self, name: str, count: int) -> tuple[float, float]:
        """Call the app's function, or its ``send``; the seconds that it took, and its CPU."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, count]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("measured "):
                took, used = json.loads(line.removeprefix("measured "))
                return took, used
        self._errors.seek(0)
        raise RuntimeError(f"the sender has ended:\n{self._errors.read()}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


class Stand:
    """Its processes are started as *peer* says, in a folder of their own."""

    def __init__(self, peer: Peer, app: App, database: Database, broker: redis.Redis) -> None:
        self.peer = peer
        self.app = app
        self.database = database
        self.sender = Sender(app)
        self._broker = broker

    def send(self, count: int) -> Measured:
        """Send so many messages by one thread."""
        before = self._database_cpu()
        took, used = self.sender.do("send", count)
        return self._measured(count, took, used, before)

    def send_many(self, count: int) -> Measured:
        """The same, all at once."""
        before = self._database_cpu()
        took, used = self.sender.do("send_many", count)
        self._broker.flushdb()
        return self._measured(count, took, used, before)

    def work(self) -> Measured:
        """From the first job to the last one that is recorded as done, with all of them sent beforehand."""
        for name in (FIRST, LAST):
            (self.app.folder / name).unlink(missing_ok=True)
        self._broker.flushdb()  # what the last worker, which was killed, has left
        self.sender.do("load", self.peer.jobs)
        worker = Process([sys.executable, "-m", *self.peer.worker], self.app)
        try:
            began = self._noted(FIRST, worker)
            used, before = cpu_seconds(worker.pid), self._database_cpu()
            ended = self._noted(LAST, worker)
            if self.peer.open:
                self._wait(lambda: not self.database.number(self.peer.open), worker)
                ended = time.monotonic()
            used = cpu_seconds(worker.pid) - used
            return self._measured(self.peer.jobs, ended - began, used, before)
        finally:
            worker.kill()

    def close(self) -> None:
        self.sender.close()
        self.app.close()
        self._broker.close()

    def _database_cpu(self) -> float | None:
        server = self.database.server
        return None if server is None else cpu_seconds(server.pid)

    def _measured(self, jobs: int, took: float, used: float, before: float | None) -> Measured:
        after = self._database_cpu()
        in_database = None if before is None or after is None else (after - before) / jobs * 1e6
        return Measured(jobs / took, used / jobs * 1e6, in_database)

    def _noted(self, name: str, worker: Process) -> float:
        path = self.app.folder / name
        self._wait(path.exists, worker)
        return float(path.read_text())

    def _wait(self, condition: Callable[[], bool], worker: Process) -> None:
        end = time.monotonic() + LONGEST
        while not condition():
            if worker.returncode is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.peer.name} does not get on:\n{worker.output()[-4_000:]}")
            time.sleep(PAUSE)


@contextmanager
def stand(servers: Servers, peer: Peer, **environment: str) -> Iterator[Stand]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(servers.redis.fresh())
        database = stack.enter_context(servers.database(peer.database, folder))
        urls = {"BROKER_URL": broker, "DATABASE_URL": database.url, "JOBS": str(peer.jobs)}
        app = App(folder, peer.source, {**urls, **peer.environment, **environment})
        made = Stand(peer, app, database, redis.Redis.from_url(broker))
        stack.callback(made.close)
        yield made
