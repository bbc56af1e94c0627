"""A broker, a database, and the processes between them, under an injector of faults."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dramatiq_durable import DurableMiddleware
from dramatiq_durable.models import OPEN
from dramatiq_durable.store import Filters, Store
from tests.support.databases import MariadbServer, PostgresServer
from tests.support.programs import start
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer, Server

from .clocks import wrong_clock
from .disk import Disk
from .ledger import Ledger

SOURCE = Path(__file__).parents[2]

#: How many processes of each module there are.
ROLES = {"producer": 1, "worker": 2, "monitor": 2}


class Role:
    """A process that is started again whenever it ends."""

    def __init__(self, module: str, number: int, lane: Lane) -> None:
        self.module = module
        self._name = f"{module}-{number}"
        self._lane = lane
        self._incarnation = 0
        self._random = random.Random(f"{lane.seed}-{self._name}")
        self.process = self._start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def keep(self) -> None:
        if self.process.poll() is not None:
            self._incarnation += 1
            self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        name = f"{self._name}-{self._incarnation}"
        environment = {
            **self._lane.environment,
            "CHAOS_NAME": name,
            "CHAOS_SEED": f"{self._lane.seed}-{name}",
        }
        if self._lane.database is not None:
            # Those who share a file share a machine, and so its clock.
            environment |= wrong_clock(self._random)
        with open(self._lane.folder / f"output-{name}", "wb") as output:
            return start(
                [sys.executable, "-m", f"tests.chaos.{self.module}"],
                folder=SOURCE,
                output=output,
                environment=environment,
            )


class Lane:
    """Everything that runs, and the ways to make it fail."""

    def __init__(self, kinds: tuple[str, str], folder: Path, seed: int, **environment: str) -> None:
        self.kinds = kinds
        self.folder = folder
        self.seed = seed
        self._stack = ExitStack()
        self._keeping = threading.Event()
        self.roles: list[Role] = []
        self._absent: str | None = None
        self.ledger = Ledger(folder)
        self.disk = Disk(folder)
        self._stack.callback(self.disk.close)
        self.broker = self._server(RedisServer if kinds[0] == "redis" else RabbitmqServer)
        self.database = {
            "postgres": lambda: self._server(PostgresServer),
            "mariadb": lambda: self._server(MariadbServer),
            "sqlite": lambda: None,
        }[kinds[1]]()
        self.broker_proxy = self._proxy(self.broker.url)
        if self.database is None:
            self.database_url = f"sqlite:///{self.disk.folder / 'jobs.db'}"
            self.database_proxy, far = self.broker_proxy, self.database_url  # a file has none
        else:
            self.database_url = self._stack.enter_context(self.database.fresh())
            self.database_proxy = self._proxy(self.database_url)
            far = self.database_proxy.url
        self.environment = {
            **{name: value for name, value in os.environ.items() if "DRAMATIQ" not in name},
            "PYTHONPATH": str(SOURCE),
            "PYTHONUNBUFFERED": "1",
            "CHAOS_FOLDER": str(folder),
            "BROKER_URL": self.broker_proxy.url,
            "DATABASE_URL": far,
            **environment,
        }
        self.durable = DurableMiddleware(self.database_url)
        self.durable.create_tables()
        self._stack.callback(self.durable.store.connections.close)
        self._create_effects()

    @property
    def store(self) -> Store:
        return self.durable.store

    def run(self) -> None:
        """Start all roles, and keep them running."""
        self.roles = [
            Role(module, number, self) for module, count in ROLES.items() for number in range(count)
        ]
        keeper = threading.Thread(target=self._keep, daemon=True)
        keeper.start()
        self._stack.callback(keeper.join)
        self._stack.callback(self._keeping.set)

    def pids(self, module: str) -> list[int]:
        return [role.pid for role in self.roles if role.module == module]

    @contextmanager
    def without(self, module: str) -> Iterator[None]:
        """Kill the processes of a module, and start them again at the end."""
        self._absent = module
        for pid in self.pids(module):
            self.ledger.write("KILL", pid, "injected")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        yield
        self._absent = None

    def end(self, within: float) -> int:
        """Produce no more, and wait until no audit is open; returns how many are."""
        (self.folder / "stop").touch()
        deadline = time.monotonic() + within
        while self.open() and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.open()

    def open(self) -> int:
        return len(self.store.ids(Filters(states=OPEN)))

    def effects(self) -> list[str]:
        """The jobs whose effects are in the database."""
        rows = self.store.connections.run(
            lambda lane: lane.execute_sql("SELECT job FROM effect").fetchall()
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        self._keeping.set()
        for role in self.roles:
            role.process.kill()
            role.process.wait()
        self._stack.close()

    def _keep(self) -> None:
        while not self._keeping.wait(0.1):
            for role in self.roles:
                stopped = role.module == "producer" and (self.folder / "stop").exists()
                if role.module != self._absent and not stopped:
                    role.keep()

    def _create_effects(self) -> None:
        columns = "id INTEGER PRIMARY KEY AUTOINCREMENT"
        if self.kinds[1] == "postgres":
            columns = "id SERIAL PRIMARY KEY"
        elif self.kinds[1] == "mariadb":
            columns = "id INTEGER PRIMARY KEY AUTO_INCREMENT"
        self.store.connections.run(
            lambda lane: lane.execute_sql(f"CREATE TABLE effect ({columns}, job VARCHAR(255))")
        )

    def _server(self, kind: type[Server]) -> Server:
        server: Any = kind()
        self._stack.callback(server.close)
        server.start()
        found: Server = server
        return found

    def _proxy(self, url: str) -> Any:
        proxy = Proxy(url)
        self._stack.callback(proxy.close)
        return proxy


@contextmanager
def lane(kinds: tuple[str, str], folder: Path, seed: int, **environment: str) -> Iterator[Lane]:
    made = Lane(kinds, folder, seed, **environment)
    try:
        yield made
    finally:
        made.close()
