"""What a pass of the monitor has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pass:
    """What one pass of the monitor has done, in numbers of audits."""

    recovered: int = 0  # enqueued again
    dead: int = 0  # given up: past their expiration, or after max_crashes
    deleted: int = 0  # finished and older than their retention
    failed: int = 0  # could not be sent, and are set aside
    held: int = 0  # stale, but their messages still wait in the broker
    outage: bool = False  # the broker takes nothing, or refused the last message

    def __bool__(self) -> bool:
        return bool(self.recovered or self.dead or self.deleted or self.failed or self.outage)

    def __str__(self) -> str:
        text = (
            f"recovered {self.recovered}, dead {self.dead}, "
            f"deleted {self.deleted}, failed {self.failed}"
        )
        if self.held:
            text += f", held {self.held}"
        return f"{text}; the broker takes no messages" if self.outage else text
