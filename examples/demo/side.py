"""One side of the comparison: an app, its broker, its ledger and its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ledger import Ledger
from server import server, socket_of

QUEUE = "dramatiq:default.msgs"  # where Dramatiq keeps the bodies that are not acked yet
STOPS_WITHIN = 20  # seconds


class Side:
    """Each process has a group and a log of its own; *stack* kills them all at its end."""

    def __init__(self, name: str, parent: Path, stack: ExitStack) -> None:
        self.name = name
        self.app = f"{name}_app"
        self._folder = folder = parent / name
        folder.mkdir()
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._environment = {
            **os.environ,
            "DEMO_LEDGER": str(self._ledger),
            "DEMO_BROKER_URL": f"unix://{socket_of(folder / 'broker')}",
            "DRAMATIQ_DURABLE_DATABASE_URL": f"sqlite:///{folder / 'audits.db'}",
        }
        self._stack = stack
        self._broker = stack.enter_context(server(folder / "broker"))

    def start_sending(self, files: list[str]) -> None:
        """Send a job for each of *files*."""
        listed = self._folder / "files"
        listed.write_text("\n".join(files))
        with open(listed, "rb") as paths:
            self._sender = self._start("sender", "send.py", self.app, stdin=paths)

    def wait_until_sent(self) -> None:
        if code := self._sender.wait():
            raise RuntimeError(f"the sender of {self.app} ended with {code}")

    def start_worker(self) -> None:
        self._worker = self._start(
            "worker", "-m", "dramatiq", f"{self.app}:broker", "--processes=1", "--threads=2"
        )

    def strike(self) -> None:
        """SIGKILL all the processes of the worker, and make the broker forget everything."""
        _kill(self._worker)
        self._broker.flushall()

    def stop_worker(self) -> None:
        _stop(self._worker)

    def over(self, sent: int) -> bool:
        """Whether nothing more can happen: no message is waiting or fetched."""
        return self._broker.hlen(QUEUE) == 0

    def recovered(self) -> object:
        """How many jobs were sent again."""
        return "-"

    def done(self) -> int:
        return len(self.ledger().ends)

    def ledger(self) -> Ledger:
        return Ledger.read(self._ledger)

    def _start(self, name: str, *command: str, stdin: Any = None) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=Path(__file__).parent,
                env=self._environment,
                stdin=stdin or subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._stack.callback(_kill, process)
        return process


class DurableSide(Side):
    """A side with a database, a monitor and the dramatiq-durable command."""

    def create_schema(self) -> None:
        self._command("schema", "create", f"{self.app}:broker")

    def start_monitor(self) -> None:
        self._monitor = self._start(
            "monitor", "-m", "dramatiq_durable", "monitor", f"{self.app}:broker", "--interval=0.5"
        )

    def stop_monitor(self) -> None:
        _stop(self._monitor)

    def over(self, sent: int) -> bool:
        """Whether every audit is finished; the database is asked when the ledger says so."""
        if self.done() < sent:
            return False
        return all(audit["state"] == "completed" for audit in self._audits())

    def recovered(self) -> object:
        return sum(audit["enqueue_count"] > 1 for audit in self._audits())

    def _audits(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(
            self._command("list", f"{self.app}:broker", "--json", "--limit=100000")
        )
        return listed

    def _command(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "dramatiq_durable", *words],
            cwd=Path(__file__).parent,
            env=self._environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop *process* as an operator would: TERM, and an exit code of 0."""
    process.terminate()
    if code := process.wait(STOPS_WITHIN):
        raise RuntimeError(f"{process.args!r} ended with {code}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
