"""How long a lane runs, and what is kept of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import ledger
from .lane import Lane
from .report import Report

WARM_UP = 3.0  # seconds before the first fault
SHOWN = 20_000  # characters of evidence


@dataclass(frozen=True)
class Plan:
    """At least so many draws of a fault, promised jobs, and minutes."""

    draws: int
    jobs: int
    minutes: float
    every: float  # seconds between two draws


def run(lane: Lane, plan: Plan) -> Report:
    """Run a lane to its end, and judge it."""
    lane.run_for(WARM_UP)
    end = time.monotonic() + 60 * plan.minutes
    drawn = 0
    while drawn < plan.draws or time.monotonic() < end:
        lane.strike_next()
        lane.run_for(plan.every)
        drawn += 1
    lane.heal_all()
    while lane.promised() < plan.jobs:
        lane.run_for(1)
    return lane.finish()


def evidence(lane: Lane, report: Report) -> str:
    """The ledger lines of what is wrong, and the words of the processes that ended by themselves."""
    text = report.evidence(ledger.read(lane.setting.path))[-SHOWN:]
    for event in report.history.exits[:3]:
        log = lane.setting.path / f"{event.args[0]}.log"
        text += f"\n--- {log.name}\n{log.read_text(errors='replace')[-3_000:]}"
    return text


def keep(lane: Lane, folder: Path) -> None:
    shutil.copytree(
        lane.setting.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("disk")
    )
