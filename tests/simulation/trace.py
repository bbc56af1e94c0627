"""What happened in a simulation, to be read, and to be compared with another run of the same seed."""

from __future__ import annotations

import json
from typing import Any

from .plan import Plan
from .scheduler import Scheduler

STATES = {"pending", "running", "completed", "dead", "cancelled"}


class Trace:
    """Keeps what is added as it is, and makes lines of it only when somebody reads them."""

    def __init__(self, seed: int, plan: Plan, scheduler: Scheduler, labels: dict[str, str]) -> None:
        self._seed = seed
        self._plan = plan
        self._scheduler = scheduler
        self._labels = labels  # by message_id
        self._events: list[tuple[float, str, Any]] = []

    def add(self, who: str, what: Any) -> None:
        """*what* is a text, or a statement with its parameters, or a call with a message."""
        self._events.append((self._scheduler.now, who, what))

    def lines(self) -> list[str]:
        plan = {name: value for name, value in vars(self._plan).items() if name != "jobs"}
        return [
            f"seed {self._seed}: {plan}",
            *(str(job) for job in self._plan.jobs),
            *(f"{at:10.3f} {who:24} {self._text(what)}" for at, who, what in self._events),
        ]

    def _text(self, what: Any) -> str:
        if isinstance(what, str):
            return what
        text, details = what
        if isinstance(details, bytes):
            message = json.loads(details)
            epoch = message["options"].get("durable_epoch")
            return f"{text}: {self._labels.get(message['message_id'])}, epoch {epoch}"
        return self._statement(text, details)

    def _statement(self, sql: str, params: Any) -> str:
        values = [str(self._labels.get(str(p), p)) for p in params or ()]
        verb = " ".join(sql.split(" ", 2)[:1]).lower()
        labels = sorted({self._labels[str(p)] for p in params or () if str(p) in self._labels})
        states = [value for value in values if value in STATES]
        return " ".join([verb, *states, *labels])
