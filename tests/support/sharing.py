"""A server that several workers of pytest-xdist use, because it takes long to start."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .servers import Server

S = TypeVar("S", bound=Server)


@contextmanager
def shared(make: Callable[[], S], folder: Path) -> Iterator[S]:
    """The server that the first of those who name this *folder* starts, and ends when all others are done with it."""
    with open(folder / "users", "ab") as users:
        with open(folder / "starting", "ab") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            found = folder / "server"
            mine = not found.exists()
            server: S = make() if mine else pickle.loads(found.read_bytes())  # noqa: S301 - our own
            try:
                if mine:
                    server.start()
                    found.write_bytes(pickle.dumps(server))
                fcntl.flock(users, fcntl.LOCK_SH)
            except BaseException:
                if mine:
                    server.close()
                raise
        try:
            yield server
        finally:
            if mine:
                fcntl.flock(users, fcntl.LOCK_EX)
                server.close()
