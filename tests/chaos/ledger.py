"""What happened, as those said to whom it happened: independent of audits and broker.

Each process appends to a file of its own, a line for each entry, in one write::

    TIME KIND SUBJECT [WORD ...]

TIME is the machine's monotonic clock, which all processes share and none can
set.  KIND and SUBJECT are one of

    CALL, OK, ERR job           a producer is about to send it, has sent it, was told that it was not sent
    ROLLED job                  its transaction was rolled back on purpose
    START, EFFECT, END job      a worker's body, with its token
    MARK message                a monitor was elected: the epoch, and the due_at that was read
    KILL pid                    a process kills itself at a named point in the code, or was killed
    PAUSE, STALL pid            it stood still until TIME, for so many seconds
    OUTAGE what                 something failed until TIME, for so many seconds
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    time: float
    kind: str
    subject: str
    words: tuple[str, ...]
    pid: int  # of the process that wrote it

    @property
    def seconds(self) -> float:
        """Of a pause or an outage, which ends at *time*."""
        return float(self.words[0])

    @property
    def began(self) -> float:
        return self.time - self.seconds

    def __str__(self) -> str:
        return f"{self.time:.3f} [{self.pid}] {self.kind} {self.subject} {' '.join(self.words)}"


class Ledger:
    """The file of this process."""

    def __init__(self, folder: Path) -> None:
        name = folder / f"ledger-{os.getpid()}"
        self._file = os.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, subject: object, *words: object) -> None:
        line = " ".join(map(str, (f"{time.monotonic():.6f}", kind, subject, *words)))
        os.write(self._file, f"{line}\n".encode())


def read(folder: Path) -> list[Entry]:
    """All that was written in *folder*, in the order of time."""
    return sorted(_entries(folder.glob("ledger-*")), key=lambda entry: entry.time)


def _entries(files: Iterable[Path]) -> Iterator[Entry]:
    for file in files:
        pid = int(file.name.removeprefix("ledger-"))
        for line in file.read_text().splitlines():
            moment, kind, subject, *words = line.split(" ")
            yield Entry(float(moment), kind, subject, tuple(words), pid)
