"""The ledger: a line for each start and each end of a job, whichever process it ran in."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Ledger:
    """How often each job started and ended, and the digests that it wrote."""

    starts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    digests: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        found = cls()
        for line in path.read_text().splitlines():
            event, digest, file = line.split(" ", 2)
            if event == "start":
                found.starts[file] += 1
            else:
                found.ends[file] += 1
                found.digests.setdefault(file, set()).add(digest)
        return found


def append(event: str, file: str, digest: str = "-") -> None:
    """Add a line to the file that ``DEMO_LEDGER`` names.

    One write to a file opened for appending: lines of several processes do not
    mix, and a line that was written survives the SIGKILL of its writer.
    """
    ledger = os.open(os.environ["DEMO_LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(ledger, f"{event} {digest} {file}\n".encode())
    finally:
        os.close(ledger)
