"""The table of a soak, in Markdown."""

from __future__ import annotations

import platform
import sqlite3
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from .settings import BOUND
from .trial import Trial

COLUMNS = ("lane", "jobs", "faults", "lost", "unexpected", "done twice, explained", "unexplained")


def table(trials: Sequence[Trial]) -> str:
    lines = [
        f"| {' | '.join((*COLUMNS, 'recovery p50 / p99 / max', 'recovered by monitors'))} |",
        f"|{'---|' * (len(COLUMNS) + 2)}",
    ]
    for each in trials:
        report = each.report
        times = " / ".join(f"{report.percentile(share):.1f}" for share in (0.5, 0.99, 1))
        cells = (
            " + ".join(each.kinds), report.jobs, sum(each.faults.values()), len(report.lost),
            len(report.unexpected), report.explained, len(report.unexplained),
            f"{times} s", f"{report.marks / max(report.jobs, 1):.2f} per job",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    faults = sum((each.faults for each in trials), Counter())
    kinds = ", ".join(f"{count} {name}" for name, count in faults.most_common())
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("dramatiq", "peewee", "redis", "pika")
    )
    return "\n".join(
        (
            *lines,
            "",
            f"Faults: {kinds}.",
            f"The bound of a recovery that no further fault strikes is {BOUND:.0f} s.",
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}.",
        )
    )
