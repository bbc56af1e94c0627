"""Several lanes at once, each a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.app import SOURCE
from tests.support.programs import start

STOPS_WITHIN = 30  # seconds
#: The ports of a lane's servers are those of a pytest-xdist worker that nobody has.
FIRST_NUMBER = 10


@dataclass(frozen=True)
class Result:
    lane: str
    returncode: int
    output: str
    summary: dict[str, Any]  # see Report.summary(); empty when the lane has come to no end


def run(lanes: Sequence[Sequence[str]], timeout: float) -> list[Result]:
    """Run ``python -m tests.chaos lane`` with each of these arguments, for at most *timeout* seconds."""
    with tempfile.TemporaryDirectory(prefix="durable-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        processes = [
            stack.enter_context(_started(folder, number, arguments))
            for number, arguments in enumerate(lanes)
        ]
        end = time.monotonic() + timeout
        return [
            _result(folder, number, "+".join(lanes[number][:2]), process, end)
            for number, process in enumerate(processes)
        ]


@contextmanager
def _started(
    folder: Path, number: int, arguments: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    summary = ["--summary", str(folder / f"{number}.json")]
    with open(folder / f"{number}.txt", "wb") as output:
        process = start(
            [sys.executable, "-m", "tests.chaos", "lane", *arguments, *summary],
            folder=SOURCE,
            output=output,
            environment={**os.environ, "PYTEST_XDIST_WORKER": f"gw{FIRST_NUMBER + number}"},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _result(
    folder: Path, number: int, lane: str, process: subprocess.Popen[bytes], end: float
) -> Result:
    try:
        returncode = process.wait(max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        returncode = -1
    output = (folder / f"{number}.txt").read_text(errors="replace")
    path = folder / f"{number}.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    return Result(lane, returncode, output, summary)
