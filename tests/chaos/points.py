"""Named points in the code where a process dies, or waits, when the injector has asked for it.

The product knows nothing of them: the application wraps its methods.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import dramatiq

from .ledger import Ledger

#: Where a process of each role may die; each method has a point before it and one after it.
METHODS = {
    "producer": {"enqueue": "audit", "begin_push": "begin-push", "pushed": "pushed"},
    "worker": {
        "enqueue": "audit",
        "claim_all": "claim",
        "heartbeat": "heartbeat",
        "complete": "completion",
        "complete_in": "completion-in-transaction",
        "release": "release",
        "requeue": "requeue",
    },
    "monitor": {"mark_all": "mark", "confirm_all": "confirm"},
}
HOOKS = {"producer": ["push"], "worker": ["push", "ack"], "monitor": ["push"]}
BODY = ["effect", "end"]


def names(role: str) -> list[str]:
    """All points of a role."""
    points = [*METHODS[role].values(), *HOOKS[role], *(BODY if role == "worker" else [])]
    return [f"{role}.{point}-{when}" for point in points for when in ("before", "after")]


class Points:
    """The points of this process.  ``strikes/POINT`` in *folder* asks the first who comes there to die."""

    def __init__(self, folder: Path, name: str, role: str, ledger: Ledger) -> None:
        self._folder = folder
        self._name = name
        self._role = role
        self._ledger = ledger

    def reach(self, point: str) -> None:
        full = f"{self._role}.{point}"
        if _take(self._folder / "strikes" / full):
            self._ledger.write("FAULT", f"{self._name}-", f"kill:{full}", self._name)
            os.killpg(0, signal.SIGKILL)
        if _take(self._folder / "holds" / full):
            number = f"hold-{self._name}-{full}"
            self._ledger.write("FAULT", number, f"hold:{full}", self._name)
            while not (self._folder / "released" / full).exists():
                time.sleep(0.01)
            self._ledger.write("HEALED", number)

    def around(self, owner: Any, method: str, point: str) -> None:
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"{point}-before")
            result = inner(*args, **kwargs)
            self.reach(f"{point}-after")
            return result

        setattr(owner, method, wrapped)


class Hooks(dramatiq.Middleware):
    """Points around pushes and acks."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def before_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        self._points.reach("push-before")

    def after_enqueue(self, broker: Any, message: Any, delay: Any, exception: Any = None) -> None:
        self._points.reach("push-after")

    def before_ack(self, broker: Any, message: Any) -> None:
        self._points.reach("ack-before")

    def after_ack(self, broker: Any, message: Any) -> None:
        self._points.reach("ack-after")


def arm(folder: Path, kind: str, point: str) -> Path:
    """Ask for the next process at *point*: *kind* is ``strikes`` or ``holds``."""
    path = folder / kind / point
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def _take(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
