"""How others see that a monitor is alive: a file that it touches, and a row beside the audits."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dramatiq.logging import get_logger

from .errors import AccessRefused, SchemaMismatch, reason
from .middleware import DurableMiddleware
from .models import NAME_LENGTH
from .passes import Pass
from .store import Monitors, Presented, Store

#: Seconds between two writes of the row; a pass with nothing to do must stay cheap.
WRITTEN_EVERY = 5.0
#: The same after one that has failed.
TRIED_EVERY = 30.0
#: Seconds for which a monitor waits until one is done.
PATIENCE = 0.5

COUNTED = ("recovered", "dead", "deleted", "failed")


class Liveness:
    """Is told of each pass of a monitor.  Whatever goes wrong here, jobs are recovered all the same.

    The file is touched after a pass that met no error of a database.  An outage of the broker is
    none: the monitor does what it can, and to start it again would not help.

    Parameters:
      interval: Seconds between two passes.
      health_file: The file, in a folder that is there.  Default: none is touched.
    """

    def __init__(
        self,
        middleware: DurableMiddleware,
        interval: float,
        health_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self._middleware = middleware
        self._interval = interval
        self._file = health_file
        self._counts: Counter[str] = Counter()
        self._outage = False
        self._started = self._next_write = time.monotonic()
        self._is_written = False
        self._writer: threading.Thread | None = None
        self._warned: set[type] = set()

    def passed(self, done: Pass, failing: Collection[Store] = ()) -> None:
        """A pass has *done* what it could; the databases of *failing* do not serve it."""
        for name in COUNTED:
            self._counts[name] += getattr(done, name)
        self._outage = done.outage
        if self._file is not None and not failing:
            self._touch(self._file)
        if time.monotonic() >= self._next_write:
            self._next_write = time.monotonic() + WRITTEN_EVERY
            self._write(self._say, failing)

    def stopped(self, failing: Collection[Store] = ()) -> None:
        """The monitor was told to stop, and has."""
        if self._is_written:
            self._write(lambda: self._monitors.stop(self._me), failing)

    # Of this process, where the monitor may have been made in its parent.
    @functools.cached_property
    def _me(self) -> Presented:
        return Presented(
            id=uuid.uuid4().hex,
            host=socket.gethostname()[:NAME_LENGTH],
            pid=os.getpid(),
            version=version("dramatiq-durable"),
            interval=timedelta(seconds=self._interval),
        )

    @functools.cached_property
    def _monitors(self) -> Monitors:
        return Monitors(self._middleware.store.aside())

    def _say(self) -> None:
        news: dict[str, Any] = {"outage": self._outage, **self._counts}
        uptime = timedelta(seconds=time.monotonic() - self._started)
        self._monitors.say(replace(self._me, **news), uptime)
        self._is_written = True

    def _touch(self, file: str | os.PathLike[str]) -> None:
        try:
            Path(file).touch()
        except Exception as error:
            self._warn(error, f"its health file cannot be touched ({error})")

    def _write(self, write: Callable[[], None], failing: Collection[Store]) -> None:
        """Let a thread *write*, so that a database which hangs there keeps the monitor from nothing."""
        if self._middleware.store in failing or self._is_writing():
            return
        is_free = self._middleware.store.aside().connections.has_room()
        self._writer = threading.Thread(target=self._attempt, args=(write,), daemon=True)
        try:
            self._writer.start()
        except RuntimeError as error:
            self._warn(error, "there is no room for another thread")
        else:
            # Metrics may be read through the same connection just now.
            self._writer.join(PATIENCE if is_free else 0)

    def _is_writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
            return
        except SchemaMismatch as error:
            advice = "run `dramatiq-durable schema migrate BROKER`"
            self._warn(error, f"there is no table durable_monitors of this version; {advice}")
        except AccessRefused as error:
            advice = "grant its database user SELECT, INSERT, UPDATE and DELETE on it"
            self._warn(error, f"it may not write durable_monitors; {advice}")
        except Exception as error:
            self._warn(error, f"durable_monitors cannot be written ({reason(error)})")
        self._next_write = time.monotonic() + TRIED_EVERY

    def _warn(self, error: Exception, why: str) -> None:
        """Say it once of each kind of error."""
        if type(error) not in self._warned:
            self._warned.add(type(error))
            self.logger.warning(
                "This monitor has trouble to show that it is alive: %s.  No job depends on that.",
                why,
            )
