"""What the processes of a lane are told, in their environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

#: A worker that looks often whether it shall stop, and comes back soon to a broker that failed.
QUICK = {"dramatiq_worker_timeout": "100", "dramatiq_restart_delay": "200"}


@dataclass(frozen=True)
class Setting:
    """A lane's servers, as its processes reach them, and its durations in seconds."""

    folder: str
    broker_url: str
    database_url: str
    seed: str = "0"
    rate: float = 14.0  # jobs that a producer sends in a second
    heartbeat: float = 0.75
    job_timeout: float = 4.0
    backoff: float = 1.0
    push_lease: float = 5.0
    interval: float = 0.3  # between a monitor's passes
    retention: float = 86_400.0
    plain: bool = False  # plain Dramatiq
    mutant: str = ""  # see mutants.py

    @property
    def lease(self) -> float:
        return 4 * self.heartbeat

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def options(self) -> dict[str, Any]:
        """Of the DurableMiddleware."""
        return {
            "heartbeat_interval": timedelta(seconds=self.heartbeat),
            "job_timeout": timedelta(seconds=self.job_timeout),
            "backoff": lambda enqueue_count: timedelta(seconds=self.backoff),
            "retention": timedelta(seconds=self.retention),
        }

    def environment(self, name: str, role: str) -> dict[str, str]:
        return {
            **QUICK,
            "CHAOS_SETTING": json.dumps(asdict(self)),
            "CHAOS_NAME": name,
            "CHAOS_ROLE": role,
        }


def current() -> Setting:
    """The setting of this process."""
    return Setting(**json.loads(os.environ["CHAOS_SETTING"]))
