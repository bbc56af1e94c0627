"""What the jobs do: nothing, but for the first and the last, which note when they are done.

Part of the applications that are measured, one process with threads each.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

FIRST, LAST = "first", "last"

_jobs = int(os.environ.get("JOBS", "0"))
_numbers = itertools.count(1)


def job() -> None:
    number = next(_numbers)
    if number == 1:
        _note(FIRST)
    if number == _jobs:
        _note(LAST)


def _note(name: str) -> None:
    unfinished = Path(f"{name}.new")
    unfinished.write_text(str(time.monotonic()))
    unfinished.rename(name)
