"""An application in a folder of its own, and real processes that run it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from .programs import start
from .waiting import PAUSE

SOURCE = Path(__file__).parents[2]

READY = "Worker process is ready for action."


class Process:
    """A process in the background, with those that it starts."""

    def __init__(self, command: list[str], app: App) -> None:
        self._output = app.folder / f"output-{next(app.numbers)}"
        with open(self._output, "wb") as output:
            self._process = start(
                command, folder=app.folder, output=output, environment=app.environment
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """What it and its children have written to stdout and stderr so far."""
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 30) -> None:
        """Wait until its output contains *text*."""
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if self.returncode is not None or time.monotonic() > deadline:
                # What it wrote last may have come since.
                assert text in self.output(), f"no {text!r} in its output:\n{self.output()}"
            time.sleep(PAUSE)

    def wait(self, timeout: float = 30) -> int:
        """Wait until it ends by itself; its return code."""
        return self._process.wait(timeout)

    def signal(self, signum: int) -> None:
        """Send a signal to it and all that it started."""
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            assert self.returncode is not None

    def terminate(self) -> None:
        """Send SIGTERM to it alone, as a supervisor does."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL it and all that it started, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait()


class App:
    """``app.py`` with *source*, and the processes of it."""

    def __init__(self, folder: Path, source: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self.numbers = itertools.count(1)
        self.environment = {
            **{name: value for name, value in os.environ.items() if "dramatiq" not in name.lower()},
            "PYTHONPATH": str(SOURCE),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        (folder / "app.py").write_text(textwrap.dedent(source))
        self._started: list[Process] = []

    def worker(self, *args: str) -> Process:
        """A Dramatiq worker, one process with two threads unless *args* say otherwise; it is ready."""
        process = self._start("-m", "dramatiq", "app:broker", "-p", "1", "-t", "2", *args)
        process.wait_for(READY)
        return process

    def monitor(self, *args: str) -> Process:
        return self._start("-m", "dramatiq_durable", "monitor", "app:broker", *args)

    def process(self, code: str) -> Process:
        """Runs *code*, which may import the app, in the background."""
        return self._start("-c", textwrap.dedent(code))

    def python(self, code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run *code*, which may import the app, to its end."""
        return self._finish("-c", textwrap.dedent(code), timeout=timeout)

    def run(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a ``dramatiq-durable`` command to its end."""
        return self._finish("-m", "dramatiq_durable", *args, timeout=timeout)

    def close(self) -> None:
        for process in self._started:
            process.kill()

    def _start(self, *arguments: str) -> Process:
        process = Process([sys.executable, *arguments], self)
        self._started.append(process)
        return process

    def _finish(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
