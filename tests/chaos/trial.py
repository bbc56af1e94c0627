"""One lane from its start to its verdict."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .checker import Checker, Report
from .injector import Injector
from .lane import lane
from .ledger import read

CI_LANES = (("redis", "postgres"), ("rabbitmq", "mariadb"), ("redis", "sqlite"))
SOAK_LANES = (*CI_LANES, ("redis", "mariadb"), ("rabbitmq", "postgres"), ("rabbitmq", "sqlite"))

#: A process kills itself at one of so many of the named points that it comes by.
POINTS_PER_DEATH = 3_000

#: Seconds that all may take to come to its end, once there are no faults any more.
QUIET_WITHIN = 120.0
SCENE_WITHIN = 20.0


@dataclass
class Trial:
    kinds: tuple[str, str]
    seed: int
    report: Report
    faults: Counter[str]
    seconds: float
    folder: Path

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        first = (
            f"{'+'.join(self.kinds)}, seed {self.seed}, {self.report.jobs} jobs, faults: {faults}"
        )
        return "\n".join([first, *self.report.wrong[:20]])


def trial(
    kinds: tuple[str, str],
    folder: Path,
    seed: int,
    *,
    seconds: float,
    rate: float,
    faults: int = 20,
    soak: bool = False,
) -> Trial:
    """Run a lane under faults for so long; in a *soak* there are backlogs, and audits are deleted, too."""
    began = time.monotonic()
    environment = {"CHAOS_RATE": str(rate), "CHAOS_CHANCE": str(1 / POINTS_PER_DEATH)}
    if soak:
        environment["CHAOS_RETENTION"] = "120000"
    with lane(kinds, folder, seed, **environment) as here:
        here.run()
        injector = Injector(here, backlogs=soak)
        injector.run(seconds, faults)
        left = here.end(QUIET_WITHIN)
        effects = here.effects()
    entries = read(folder)
    for entry in entries:
        if entry.kind == "KILL" and entry.words != ("injected",):
            injector.done["death at a named point"] += 1
    report = Checker(entries, effects, left).check()
    took = time.monotonic() - began
    return Trial(kinds, seed, report, injector.done, took, folder)


def scene(folder: Path, *, plain: bool = False, mutant: str | None = None) -> Report:
    """A small lane with the faults that any broken promise shows in."""
    environment = {"CHAOS_RATE": "40"}
    if plain:
        environment["CHAOS_PLAIN"] = "1"
    if mutant is not None:
        environment["CHAOS_MUTANT"] = mutant
    with lane(("redis", "sqlite"), folder, 1, **environment) as here:
        here.run()
        injector = Injector(here)
        for _ in range(3):
            for fault in ("drop a reply of the broker", "kill a worker", "FLUSHALL"):
                time.sleep(0.7)
                injector.inject(fault)
        left = here.end(SCENE_WITHIN)
        effects = here.effects()
    return Checker(read(folder), effects, left).check()
