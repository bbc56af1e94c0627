"""One simulation from its seed to its verdict."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq

from . import seams
from .bodies import EFFECTS, Bodies
from .broker import BrokerServer
from .database import DatabaseServer
from .faults import JUMPS, PAUSES, Faults
from .ledger import Ledger, is_monitor
from .plan import Plan
from .processes import Application, operate, produce, serve, shut_down, watch
from .scheduler import Process, Scheduler
from .trace import Trace

TICK = 0.001  # seconds that go by at each point
RESTART = (0, 1, 30, 100)  # seconds after a crash


class World:
    """The processes of one seed, with what they share."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.plan = Plan(rng)
        self.violations: list[str] = []
        self.scheduler = Scheduler(rng, self.plan.eagerness)
        self.ledger = Ledger(self.plan, self.scheduler, self._violated)
        self.trace = Trace(seed, self.plan, self.scheduler, self.ledger.labels)
        self.server = BrokerServer(self)
        self.database = DatabaseServer(EFFECTS)
        self.bodies = Bodies(self)
        self._faults = Faults(rng, self.plan.faults, self.plan.spread)
        self._refusals = 0  # statements that the database will not answer
        self._generation = 0

    def run(self) -> None:
        """Run everything until it rests, and check what the ledger says."""
        try:
            Application(self, "producer", produce(self.plan.jobs)).start()
            Application(self, "worker-a", serve).start()
            Application(self, "worker-b", serve).start()
            for number in range(1, self.plan.monitors + 1):
                Application(self, f"monitor-{number}", watch).start()
            if self.plan.actions:
                Application(self, "operator", operate(self.plan.actions)).start()
            self.scheduler.run()
            if self.scheduler.exhausted:
                self._violated("it does not come to rest")
            for error in self.scheduler.errors:
                self._violated(f"a thread died of {error!r}")
            effects = self.database.own.execute("SELECT label FROM effects")
            self.ledger.check([label for (label,) in effects])
        finally:
            self.database.close()

    def note(self, text: str) -> None:
        self.trace.add(self.scheduler.current.name, text)

    def point(self, place: str, what: Any) -> str | None:
        """Where others may run, and a fault may strike; returns one that the caller has to play."""
        scheduler = self.scheduler
        scheduler.check()
        process = scheduler.current.process
        scheduler.now += TICK
        self.trace.add(scheduler.current.name, what)
        fault = self._faults.next(place)
        if fault is not None:
            self.note(f"*** {fault}")
            fault = self._strike(fault, process)
        scheduler.switch()
        return fault

    def _strike(self, fault: str, process: Process) -> str | None:
        if fault == "crash":
            self._crash(process)
        elif fault == "pause":
            # One that holds SQLite's only lock stops all the others.
            pauses = PAUSES[:1] if self.database.is_locked_by(process) else PAUSES
            process.paused_until = self.scheduler.now + self.rng.choice(pauses)
        elif fault == "jump":
            self.scheduler.now += self.rng.choice(JUMPS)
        elif fault == "flush":
            self.server.flush()
        elif fault == "outage":
            self._refusals = self.rng.randint(2, 8)
        elif fault == "stop":
            self._stop(process)
        else:
            return fault
        return None

    # Of the database and the broker

    def statement(
        self, connection: sqlite3.Connection, execute: Callable[[], Any], sql: str, params: Any
    ) -> Any:
        fault = self.point("statement", (sql, params))
        if fault is None and self._refusals:
            self._refusals -= 1
            fault = "refused"
            self.note("refused")
        elif fault == "answer lost" and self.rng.random() < 0.5:
            self._refusals = self.rng.randint(1, 3)
        if fault == "refused":
            raise sqlite3.OperationalError("disk I/O error: simulated")
        result = execute()
        task = self.scheduler.current
        if not connection.in_transaction and not sql.startswith(("SELECT", "BEGIN")):
            self.ledger.observe(self.database.own)
        if fault == "answer lost":
            result.fetchall()  # or its lock stays with whoever keeps the traceback
            self.ledger.answer_lost(task)
            raise sqlite3.OperationalError("disk I/O error: simulated")
        return result

    def call(self, what: str, data: bytes) -> str | None:
        return self.point("call", (what, data))

    def pushed(self, message: dramatiq.Message[Any]) -> None:
        if is_monitor(self.scheduler.current):
            self.ledger.pushed(message.message_id)

    # Of the processes

    def exited(self, process: Process) -> None:
        """It ends of its own accord, and its threads with it."""
        process.crashed = True
        self.database.crash(process)

    def _crash(self, process: Process) -> None:
        self.exited(process)
        if self.plan.redelivery == "at once":
            self.server.redeliver(process)
        elif self.plan.redelivery == "late":
            self.scheduler.start(Process("broker"), "broker", lambda: self._redeliver_late(process))
        assert isinstance(process, Application)
        if process.main in {serve, watch}:
            self._start_anew(process)

    def _redeliver_late(self, process: Process) -> None:
        self.scheduler.sleep(60)
        self.server.redeliver(process)

    def _stop(self, process: Process) -> None:
        assert isinstance(process, Application)
        if process.main is serve and process.threads and not process.stopping:
            process.stopping = True
            self.scheduler.start(process, f"{process.name}/stop", lambda: shut_down(process))
            self._start_anew(process)

    def _start_anew(self, process: Application) -> None:
        self._generation += 1
        name = f"{process.name.partition('+')[0]}+{self._generation}"
        Application(self, name, process.main).start(self.rng.choice(RESTART))

    def _violated(self, what: str) -> None:
        self.violations.append(what)
        self.trace.add("ledger", f"!!! {what}")


@contextmanager
def _quiet() -> Iterator[None]:
    state = random.getstate()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with seams.installed():
            yield
    finally:
        logging.disable(before)
        random.setstate(state)


def simulate(seed: int) -> World:
    """Run the simulation of *seed*; its violations, and its trace, are in what it returns."""
    with _quiet():
        random.seed(seed)  # the jitter of the library and of Dramatiq
        world = World(seed)
        world.run()
        return world
