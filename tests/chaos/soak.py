"""Six lanes for half an hour, the same faults on plain Dramatiq, and a table of both."""

from __future__ import annotations

import platform
import re
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.programs import find

from . import side_by_side
from .side_by_side import Result

#: Each with its retention in seconds; clocks are wrong where that is long.
LANES = [
    ("redis", "postgres", 86_400),
    ("rabbitmq", "mariadb", 86_400),
    ("redis", "sqlite", 40),
    ("redis", "mariadb", 40),
    ("rabbitmq", "postgres", 40),
    ("rabbitmq", "sqlite", 86_400),
]
RATE = 5.0  # jobs of a producer in a second
EVERY = 8.0  # seconds between two draws of a fault
BACKLOG = 30.0  # seconds that workers are off, at the most
PLAIN_PART = 0.2  # of the minutes

SERVERS = [
    ["redis-server", "--version"],
    ["rabbitmqctl", "version"],
    ["postgres", "--version"],
    ["mariadbd", "--version"],
]
LIBRARIES = ["dramatiq", "peewee", "redis", "pika", "psycopg", "PyMySQL"]


@dataclass(frozen=True)
class Done:
    minutes: float
    seed: str
    durable: list[Result]
    plain: list[Result]

    @property
    def ok(self) -> bool:
        """Plain Dramatiq is not judged."""
        return all(result.returncode == 0 for result in self.durable)


class Soak:
    def __init__(self, minutes: float, seed: str, keep: Path | None = None) -> None:
        self._minutes = minutes
        self._seed = seed
        self._keep = keep

    def run(self) -> Done:
        print(f"soak, {self._minutes:g} minutes, seed {self._seed}", flush=True)
        durable = self._lanes(self._minutes)
        for result in durable:
            print(result.output, flush=True)
        plain = self._lanes(self._minutes * PLAIN_PART, "--plain")
        return Done(self._minutes, self._seed, durable, plain)

    def _lanes(self, minutes: float, *options: str) -> list[Result]:
        arguments = [
            [
                *(broker, database, *options),
                *("--seed", f"{self._seed}-{broker}-{database}"),
                *("--minutes", str(minutes)),
                *("--rate", str(RATE)),
                *("--every", str(EVERY)),
                *("--backlog", str(BACKLOG)),
                *("--retention", str(retention)),
                *(["--keep", str(self._keep / f"{broker}-{database}")] if self._keep else []),
            ]
            for broker, database, retention in LANES
        ]
        return side_by_side.run(arguments, timeout=60 * (minutes + 10))


def table(done: Done) -> str:
    """The numbers of a soak, in Markdown."""
    ended = [result for result in done.durable if result.summary]
    names = [result.lane for result in ended]
    rows = [row(title, [cell(each.summary) for each in ended]) for title, cell in ROWS]
    rows.append(row("plain Dramatiq: lost, of those sent", [_plain(done, name) for name in names]))
    missing = [result.lane for result in done.durable if not result.summary]
    lines = [
        row("", names),
        row("---", ["---:"] * len(names)),
        *rows,
        "",
        _totals(ended),
        "",
        f"Faults: {_faults(ended)}.",
        "",
        f"{done.minutes:g} minutes, seed {done.seed}; {_versions()}.",
        *(f"**{lane} came to no end.**" for lane in missing),
    ]
    return "\n".join(lines)


def row(title: str, cells: Sequence[object]) -> str:
    return f"| {title} | {' | '.join(map(str, cells))} |"


def _violations(*verdicts: str) -> Callable[[Any], int]:
    return lambda summary: sum(summary["violations"][verdict] for verdict in verdicts)


def _quantile(part: float) -> Callable[[Any], str]:
    def cell(summary: Any) -> str:
        seconds = sorted(each[0] for each in summary["recoveries"])
        return (
            f"{seconds[min(int(part * len(seconds)), len(seconds) - 1)]:.1f} s" if seconds else "-"
        )

    return cell


def _tightest(summary: Any) -> str:
    return f"{max((taken / bound for taken, bound in summary['recoveries']), default=0):.0%}"


def _explained(summary: Any) -> str:
    reasons = summary["explained"]
    text = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"{sum(reasons.values())} ({text})" if reasons else "0"


def _others(summary: Any) -> int:
    named = ("lost", "unexpected", "duplicates unexplained")
    return sum(n for verdict, n in summary["violations"].items() if verdict not in named)


ROWS: list[tuple[str, Callable[[Any], object]]] = [
    ("jobs", lambda summary: summary["jobs"]),
    ("of them promised", lambda summary: summary["promised"]),
    ("faults", lambda summary: sum(summary["faults"].values())),
    ("lost", _violations("lost")),
    ("unexpected", _violations("unexpected")),
    ("duplicates unexplained", _violations("duplicates unexplained")),
    ("other violations", _others),
    ("duplicates explained", _explained),
    ("recoveries", lambda summary: len(summary["recoveries"])),
    ("recovery p50", _quantile(0.5)),
    ("recovery p99", _quantile(0.99)),
    ("recovery max", _quantile(1)),
    ("largest part of its bound", _tightest),
    ("pushes of monitors per job", lambda summary: f"{summary['pushes'] / summary['jobs']:.2f}"),
]


def _plain(done: Done, lane: str) -> str:
    for result in done.plain:
        if result.lane == lane and result.summary:
            lost = result.summary["violations"]["lost"]
            return f"{lost} of {result.summary['promised']}"
    return "-"


def _totals(ended: Sequence[Result]) -> str:
    summaries = [result.summary for result in ended]
    jobs = sum(summary["jobs"] for summary in summaries)
    faults = sum(sum(summary["faults"].values()) for summary in summaries)
    wrong = sum(sum(summary["violations"].values()) for summary in summaries)
    return f"In all {jobs} jobs, {faults} faults, {wrong} violations."


def _faults(ended: Sequence[Result]) -> str:
    counts: Counter[str] = Counter()
    for result in ended:
        counts.update(result.summary["faults"])
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _versions() -> str:
    servers = [f"{program} {_version(program, argument)}" for program, argument in SERVERS]
    libraries = [f"{each} {version(each)}" for each in LIBRARIES]
    python = platform.python_version()
    return ", ".join([*servers, f"SQLite {sqlite3.sqlite_version}", f"Python {python}", *libraries])


def _version(program: str, argument: str) -> str:
    done = subprocess.run([find(program), argument], capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found.group() if found else "?"
