"""Private servers on loopback, with their data in temporary folders."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from .programs import find, start
from .waiting import eventually

STARTS_WITHIN = 60  # seconds
STOPS_WITHIN = 30  # seconds
LOG_SHOWN = 4_000  # characters

# Below the ports that the system gives to clients, so that nobody takes the
# port of a server while it is stopped; a thousand for each worker of pytest-xdist.
_FIRST_PORT = 12_000
_PORTS = 1_000
_given: set[int] = set()


class Server(ABC):
    """A server that can be stopped, killed and started again on the same port and data."""

    account: ClassVar[str | None] = None
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    kill_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="durable-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self.account and os.geteuid() == 0:
            shutil.chown(self.folder, self.account, self.account)

    def __getstate__(self) -> dict[str, Any]:
        """For others that use it: the process stays whose it is."""
        return {**vars(self), "_process": None}

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the server is, as a user would write it."""

    @abstractmethod
    def fresh(self) -> AbstractContextManager[str]:
        """The URL of an empty database, or virtual host, that nobody else uses."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _environment(self) -> dict[str, str] | None:
        return None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None, "the server runs already"
        self._process = self._run(self._command(), self._environment())
        eventually(self._is_up, STARTS_WITHIN, f"{type(self).__name__} does not answer")

    def stop(self) -> None:
        """Stop it as an administrator would, and wait until it is gone."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Stop it at once, in the middle of whatever it does."""
        self._end(self.kill_signal)

    def close(self) -> None:
        """End it, if it runs, and delete its data."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """What the server has said lately."""
        return (self.folder / "log").read_text(errors="replace")[-LOG_SHOWN:]

    def _prepare(self, command: list[str]) -> None:
        process = self._run(command)
        if process.wait(STARTS_WITHIN) != 0:
            raise RuntimeError(f"{command[0]} failed:\n{self.log()}")

    def _run(
        self, command: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            return start(
                command,
                folder=self.folder,
                output=log,
                environment=environment,
                account=self.account,
                last_signal=self.kill_signal,
            )

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            raise RuntimeError(f"{type(self).__name__} ended with {code}:\n{self.log()}")
        return self._answers()

    def _end(self, signum: signal.Signals) -> None:
        assert self._process is not None, "the server is stopped"
        process, self._process = self._process, None
        process.send_signal(signum)
        try:
            process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class RedisServer(Server):
    """Redis or Valkey; it keeps nothing on disk unless *args* say so."""

    DATABASES = 1_000

    def __init__(self, *args: str) -> None:
        program = find("redis-server", "valkey-server")
        super().__init__()
        self._args = [program, *self._defaults(), *args]
        self._used = 0

    def _defaults(self) -> list[str]:
        defaults = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [*defaults, "--save", "", "--appendonly", "no", "--databases", str(self.DATABASES)]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @contextmanager
    def fresh(self) -> Iterator[str]:
        self._used = number = self._used % (self.DATABASES - 1) + 1
        yield f"redis://127.0.0.1:{self.port}/{number}"
        self._ask(f"SELECT {number}", "FLUSHDB")

    def _command(self) -> list[str]:
        return self._args

    def _answers(self) -> bool:
        try:
            # It says LOADING while it reads its files, and NOAUTH when it wants a password.
            return self._ask("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _ask(self, *commands: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            for command in commands:
                connection.sendall(f"{command}\r\n".encode())
                answer = connection.recv(100)
        return answer


def free_port() -> int:
    """A port on loopback that nobody listens on, given to nobody else in this process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST_PORT + _PORTS * (int(worker) % 20)
    while True:
        port = first + random.randrange(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
