"""A lane: a broker, a database, the processes that use them, and the faults that befall them."""

from __future__ import annotations

import heapq
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import peewee
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware

from . import faults, ledger
from .checker import check
from .crew import Crew, run
from .excuses import Bounds
from .faults import Draw, Fault
from .ledger import Ledger
from .points import arm, names
from .report import Report
from .servers import File, Remote, brokers, databases
from .setting import Setting

COUNTS = {"producer": 2, "worker": 3, "monitor": 2}
TICK = 0.05  # seconds
HAPPENS_WITHIN = 30.0  # seconds
QUIET_WITHIN = 120.0  # seconds

EFFECTS = """
    CREATE TABLE chaos_effects (
        id {serial}, job VARCHAR(255) NOT NULL, token INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL
    )
"""
PROBE = "CREATE TABLE chaos_probe (number INTEGER)"  # nobody waits for its rows
SERIAL = {
    "sqlite": "INTEGER PRIMARY KEY",
    "postgresql": "BIGSERIAL PRIMARY KEY",
    "mysql": "BIGINT PRIMARY KEY AUTO_INCREMENT",
}


class Lane:
    def __init__(
        self, setting: Setting, broker: Remote, database: Remote | File, counts: dict[str, int]
    ) -> None:
        self.setting = setting
        self.broker = broker
        self.database = database
        self.rng = random.Random(setting.seed)
        self.ledger = Ledger(setting.path, "injector")
        self.crew = Crew(setting, self.ledger, counts)
        self.armed: list[Path] = []
        self.rounds = 0
        self.backlog = (3.0, 6.0)  # seconds that all workers are off, at least and at most
        self.plain_quiet = (
            30.0  # seconds in which plain Dramatiq runs nothing: what is left is lost
        )
        self._numbers = itertools.count(1)
        self._heals: list[tuple[float, int, Callable[[], object], str]] = []
        self._points = {role: self._endless(role) for role in COUNTS}
        self._deck: list[Draw] = []

    def _endless(self, role: str) -> Iterator[str]:
        while True:
            points = names(role)
            self.rng.shuffle(points)
            yield from points

    def next_point(self, role: str) -> str:
        return next(self._points[role])

    # Running

    def tick(self) -> None:
        """Heal what is due, replace who has died."""
        while self._heals and self._heals[0][0] <= time.monotonic():
            self._heal()
        self.crew.tick()

    def run_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick()
            time.sleep(TICK)

    def strike(self, fault: Fault) -> None:
        """Break something, note it, and plan when it is healed."""
        number = next(self._numbers)
        self.ledger.write("FAULT", number, fault.name, fault.subject)
        heal = fault.strike()
        if heal is not None:
            at = time.monotonic() + fault.seconds
            heapq.heappush(self._heals, (at, number, heal, fault.subject))

    def strike_next(self) -> None:
        """Break whatever comes next, unless it is broken already."""
        if not self._deck:
            self._deck = faults.all_draws(self)
            self.rng.shuffle(self._deck)
            self.rounds += 1
        fault = self._deck.pop()(self)
        if fault is not None and fault.subject not in {each[3] for each in self._heals}:
            self.strike(fault)

    def heal_all(self) -> None:
        while self._heals:
            self._heal()
        for path in self.armed:
            path.unlink(missing_ok=True)

    def _heal(self) -> None:
        _, number, heal, _ = heapq.heappop(self._heals)
        heal()
        self.ledger.write("HEALED", number)

    # Scenes, for tests that need one fault at one moment

    def send(self, *actor_names: str) -> None:
        """Send one job to each, from a producer that then ends."""
        name = f"sender{next(self._numbers)}"
        arguments = ["-m", "tests.chaos.producer", *actor_names]
        process = run(self.setting, name, "producer", arguments)
        while process.poll() is None:
            self.run_for(TICK)

    def wait_for(self, *words: str, count: int = 1) -> None:
        """Wait until the ledgers have *count* lines with one of *words*."""
        end = time.monotonic() + HAPPENS_WITHIN
        while sum(event.word in words for event in ledger.read(self.setting.path)) < count:
            assert time.monotonic() < end, f"there are not {count} {words}"
            self.run_for(TICK)

    def hold(self, point: str) -> Callable[[], object]:
        """Let the next who comes to *point* wait there until the function returned is called."""
        arm(self.setting.path, "holds", point)
        return lambda: arm(self.setting.path, "released", point)

    def wait_until_held(self, point: str) -> None:
        end = time.monotonic() + HAPPENS_WITHIN
        while (self.setting.path / "holds" / point).exists():
            assert time.monotonic() < end, f"nobody comes to {point}"
            self.run_for(TICK)

    # The end

    def finish(self) -> Report:
        """Heal everything, wait until nothing is open, end all processes, and judge."""
        self.heal_all()
        self.crew.stop("producer")
        deadline = time.monotonic() + QUIET_WITHIN
        while self._is_busy() and time.monotonic() < deadline:
            self.run_for(0.5)
        left_open = self._left_open()
        self.crew.stop("worker")
        self.crew.stop("monitor")
        self._note_effects()
        return check(ledger.read(self.setting.path), self.bounds(), left_open)

    def bounds(self) -> Bounds:
        setting = self.setting
        return Bounds(
            lease=setting.lease,
            heartbeat=setting.heartbeat,
            job_timeout=setting.job_timeout,
            backoff=setting.backoff,
            push_lease=setting.push_lease,
            interval=setting.interval,
            one_file=isinstance(self.database, File),
            tokens=not setting.plain,
        )

    def promised(self) -> int:
        """How many sends have returned so far."""
        return sum(
            path.read_bytes().count(b" OK ") for path in self.setting.path.glob("producer*.ledger")
        )

    def _is_busy(self) -> bool:
        if not self.setting.plain:
            return bool(self._left_open())
        workers = [path.stat().st_mtime for path in self.setting.path.glob("worker*.ledger")]
        return time.time() - max(workers, default=0) < self.plain_quiet

    def _left_open(self) -> list[str]:
        rows = self._rows(
            "SELECT state, message_id, actor_name, epoch, enqueue_count, last_error"
            " FROM durable_audits WHERE state NOT IN ('completed', 'cancelled')"
        )
        return [" ".join(map(str, row)) for row in rows]

    def _note_effects(self) -> None:
        noted = Ledger(self.setting.path, "database")
        for job, token, at in self._rows("SELECT job, token, at FROM chaos_effects"):
            noted.write("EFFECT", job, token, at=at)
        noted.close()

    def _rows(self, statement: str) -> list[Any]:
        database: Any = connect(self.database.direct)
        with database.connection_context():
            return list(database.execute_sql(statement).fetchall())


@contextmanager
def lane(broker: str, database: str, **setting: Any) -> Iterator[Lane]:
    """A lane whose processes are about to start."""
    counts = setting.pop("counts", COUNTS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-chaos-")))
        # In a thread that stays, for a server ends with the thread that has started it.
        pool = stack.enter_context(ThreadPoolExecutor())
        starting = pool.submit(stack.enter_context, brokers(broker))
        storage = stack.enter_context(databases(database, folder))
        messages = starting.result()
        made = Lane(
            Setting(str(folder), messages.url, storage.url, **setting), messages, storage, counts
        )
        stack.callback(made.ledger.close)
        stack.callback(made.crew.close)
        _create_tables(storage)
        yield made


def _create_tables(storage: Remote | File) -> None:
    database: Any = connect(storage.direct)
    durable = DurableMiddleware(database)
    durable.create_tables()
    durable.store.connections.close()
    serial = SERIAL[storage.direct.partition(":")[0]]
    with database.connection_context():
        database.execute_sql(EFFECTS.format(serial=serial))
        database.execute_sql(PROBE)
        if isinstance(database, peewee.SqliteDatabase):
            database.execute_sql("PRAGMA journal_mode = wal")
