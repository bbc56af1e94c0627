"""The processes of a lane: each place has one, and gets a new one when it has died."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.app import SOURCE
from tests.support.programs import start

from .ledger import Ledger
from .setting import Setting

COMMANDS = {
    "producer": ["-m", "tests.chaos.producer"],
    "worker": ["-m", "dramatiq", "tests.chaos.app:broker", "-p", "1"],
    "monitor": ["-m", "dramatiq_durable", "monitor", "tests.chaos.app:broker"],
}
STOPS_WITHIN = 30  # seconds
THREADS = 6

FAKETIME = [
    *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
    *Path("/usr/lib").glob("faketime/libfaketime.so.1"),
]


class Place:
    """Where one process of a role runs, and after its death another."""

    def __init__(self, role: str, number: int, setting: Setting, ledger: Ledger) -> None:
        self.role = role
        self.clock = 0  # seconds that the next process's clock is wrong
        self.stopped = False  # by SIGSTOP
        self.wanted = True
        self._number = number
        self._setting = setting
        self._ledger = ledger
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._told = False  # to end

    @property
    def name(self) -> str:
        return f"{self.role}{self._number}.{self._generation}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def tick(self) -> None:
        """Note that the process has ended, or start one where it is wanted."""
        if self._process is not None and self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            self.stopped = False
            told, self._told = self._told, False
            if not told and not self._killed and code != -signal.SIGKILL:
                self._ledger.write("EXIT", self.name, code)
        if self._process is None and self.wanted:
            self._start()

    def kill(self) -> None:
        self._killed = True
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end; no other comes."""
        self.wanted = False
        self._told = True
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._ledger.write("EXIT", self.name, "hangs")
            self.kill()
            self._process.wait()
        self._process = None

    def signal(self, signum: int) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            return

    def _start(self) -> None:
        self._generation += 1
        self._killed = self._told = False
        arguments = COMMANDS[self.role]
        if self.role == "worker":
            arguments = [*arguments, "-t", str(THREADS)]
        if self.role == "monitor":
            arguments = [*arguments, "--interval", str(self._setting.interval)]
        faked = _faked(self.clock) if self.clock else {}
        self._process = run(self._setting, self.name, self.role, arguments, faked)


def run(
    setting: Setting,
    name: str,
    role: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of *setting* under this *name*."""
    with open(setting.path / f"{name}.log", "wb") as log:
        return start(
            [sys.executable, *arguments],
            folder=setting.path,
            output=log,
            environment={
                **{k: v for k, v in os.environ.items() if "dramatiq" not in k.lower()},
                **setting.environment(name, role),
                "PYTHONPATH": str(SOURCE),
                "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            },
        )


def _faked(seconds: int) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class Crew:
    """All places of a lane."""

    def __init__(self, setting: Setting, ledger: Ledger, counts: dict[str, int]) -> None:
        self.places = [
            Place(role, number, setting, ledger)
            for role, count in counts.items()
            for number in range(1, count + 1)
        ]

    def tick(self) -> None:
        for place in self.places:
            place.tick()

    def of(self, role: str) -> list[Place]:
        return [place for place in self.places if place.role == role]

    def on(self, role: str) -> None:
        for place in self.of(role):
            place.wanted = True

    def off(self, role: str) -> None:
        """Ask all of *role* to end; no others come until they are :meth:`on` again."""
        for place in self.of(role):
            place.stop()

    def pick(self, role: str, rng: random.Random) -> Place | None:
        """A process of *role* that runs and is not stopped."""
        able = [each for each in self.of(role) if each.runs and not each.stopped]
        return rng.choice(able) if able else None

    def stop(self, role: str) -> None:
        """The same, and wait until they have."""
        self.off(role)
        for place in self.of(role):
            place.wait()

    def close(self) -> None:
        for place in self.places:
            place.wanted = False
            place.kill()
            place.wait()
