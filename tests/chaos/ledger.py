"""What happened, as each process saw it: an append-only file for each, of which a kill loses nothing.

=============================  ====================================================================
``CALL job kind delay``        a producer is about to send it; the *delay* is in seconds
``OK job``                     ``send()`` returned, or its transaction was committed
``ERR job``                    ``send()`` raised: it will not run
``ROLLBACK job``               its producer rolled its transaction back: it will not run
``START job token``            an actor has begun
``EFFECT job token``           it has done what the job is for
``END job token``              it returned
``FAIL job token``             it raised, or was interrupted
``LOST job token``             it was told that its lease is lost
``PUSH job epoch period``      a monitor has enqueued it again, for it was stale in this *period*
``FAULT number name subject``  something was broken: a process, by its name, or a server, by its role
``HEALED number``              it is whole again; what is never healed was over at once
``STALL seconds``              the process, or its way to the database, just stood still for so long
``EXIT name code``             a process has ended by itself
=============================  ====================================================================

All times are of CLOCK_MONOTONIC, which is one clock for all processes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    at: float  # seconds
    process: str
    word: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.process} {self.word} {' '.join(self.args)}"


class Ledger:
    """The file of one process; *name* is the process's."""

    def __init__(self, folder: Path, name: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(folder / f"{name}.ledger", flags, 0o600)

    def write(self, word: str, *args: object, at: float | None = None) -> None:
        line = " ".join(map(str, (time.monotonic() if at is None else at, word, *args)))
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> list[Event]:
    """All events in *folder*, in the order of time."""
    events = [
        parse(line, path.stem)
        for path in folder.glob("*.ledger")
        for line in path.read_text().splitlines()
    ]
    return sorted(events, key=lambda event: event.at)


def parse(line: str, process: str) -> Event:
    at, word, *args = line.split()
    return Event(float(at), process, word, tuple(args))
