"""What doctor looks at, and what it finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from ..middleware import DurableMiddleware
from ..store import Seen, Store


class State(enum.Enum):
    FINE = "fine"
    WRONG = "wrong"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Finding:
    """*check* names what was looked at, *says* what was found, *advice* what to do about it."""

    check: str
    state: State
    says: str
    advice: str = ""


def fine(check: str, says: str) -> Finding:
    return Finding(check, State.FINE, says)


def wrong(check: str, says: str, advice: str) -> Finding:
    return Finding(check, State.WRONG, says, advice)


def unreachable(check: str, says: str, advice: str = "") -> Finding:
    return Finding(check, State.UNREACHABLE, says, advice)


@dataclass(frozen=True)
class Examined:
    """An application, as far as it is within reach.

    *clocks* are the audits whose database answers, and how far this machine's clock is ahead of
    that one's; *monitors* are those that were seen, or why that is not known.  A
    monitor that was not seen for *unseen*, and an audit that is stale for *stale*, are not as they
    should be.
    """

    middleware: DurableMiddleware
    clocks: dict[Store, timedelta]
    monitors: list[Seen] | Finding
    unseen: timedelta
    stale: timedelta

    @property
    def running(self) -> list[Seen]:
        """The monitors that run, or have made one pass and will make the next."""
        known = () if isinstance(self.monitors, Finding) else self.monitors
        return [seen for seen in known if self._counts(seen)]

    def _counts(self, seen: Seen) -> bool:
        pause = timedelta(0) if seen.stopped else seen.monitor.interval
        return seen.ago <= self.unseen + pause
