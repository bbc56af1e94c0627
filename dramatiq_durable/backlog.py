"""A backlog is not a failure: stale audits whose messages still wait in the broker are held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .models import PENDING
from .presence import Answer, Presence
from .store import Reach, Stale, Store

#: A message that the broker says it has, while its queue stands still, is taken for stranded after so many job_timeouts.
STRANDED = 12


#: What is fetched and not begun in all its job_timeout, another worker may run sooner.
SENT_AGAIN = {Answer.GONE, Answer.FETCHED}


@dataclass
class Probe:
    """A message that was sent again to see whether its queue, which stands still, has consumers."""

    message_id: str
    epoch: int
    sent_at: datetime


class Line:
    """What is known of one queue in one table."""

    def __init__(self) -> None:
        self.reach: Reach | None = None
        self.probe: Probe | None = None
        self.probe_again_at: datetime | None = None

    def move(self, reach: Reach) -> None:
        self.reach = reach if self.reach is None else self.reach.further(reach)

    def has_passed(self, stale: Stale, margin: timedelta = timedelta(0)) -> bool:
        """Whether a copy that was enqueued later, by more than *margin*, has been claimed already."""
        return self.reach is not None and self.reach.enqueued_at - margin >= stale.starts_at

    def moves(self, stale: Stale) -> bool:
        """Whether a job has been claimed lately, in terms of the job_timeout of *stale*."""
        return self.reach is not None and stale.now - self.reach.started_at < _timeout(stale)


class Backlog:
    """Tells the stale audits that wait from those that are lost.

    A queue is worked off in its order.  So what was enqueued before a copy that
    has been claimed is lost, and what was enqueued after it waits, as long as the queue
    moves.  In one that stands still, or of which no job is among those read, either nobody consumes or all is lost: the oldest
    stale message is sent again, and what becomes of that copy tells, or after a
    job_timeout the next one does.

    Parameters:
      sample: How many of the jobs completed last are read to see how far the queues have come.
    """

    def __init__(self, presence: Presence, sample: int) -> None:
        self._presence = presence
        self._sample = sample
        self._lines: dict[tuple[Any, str], Line] = {}  # by table and queue
        self._fresh: dict[Any, bool] = {}  # tables that were read in this pass, and whether wholly

    def begin(self) -> None:
        """Begin a pass."""
        self._fresh.clear()

    def held(self, store: Store, batch: Sequence[Stale]) -> list[Stale]:
        """Those of *batch* that are not to be sent again now."""
        out = [stale for stale in batch if stale.is_with_broker]
        if not out:
            return []
        answers = zip(out, self._presence.ask(out), strict=True)
        return [
            stale
            for stale, answer in answers
            if answer not in SENT_AGAIN and self._holds(store, stale, answer)
        ]

    def _holds(self, store: Store, stale: Stale, answer: Answer) -> bool:
        line = self._line(store, stale)
        if answer in (Answer.WAITS, Answer.DELAYED):
            # What was sent a little later may have gone to another worker, and been quicker.
            if line.has_passed(stale, _timeout(stale)):
                return False
            is_young = stale.now - stale.starts_at < STRANDED * _timeout(stale)
            if line.moves(stale) or (is_young and answer is Answer.WAITS):
                return True
        elif line.has_passed(stale) or (line.reach is None and self._fresh[store.audit]):
            return False
        return line.moves(stale) or not self._begin_probe(line, stale)

    def _line(self, store: Store, stale: Stale) -> Line:
        table = store.audit
        if table not in self._fresh:
            reaches, self._fresh[table] = store.reach(self._sample)
            for queue_name, reach in reaches.items():
                self._lines.setdefault((table, queue_name), Line()).move(reach)
            for (of, _), line in self._lines.items():
                if of is table and line.probe is not None:
                    _read_probe(store, line, line.probe)
        return self._lines.setdefault((table, stale.queue_name), Line())

    def _begin_probe(self, line: Line, stale: Stale) -> bool:
        if line.probe_again_at is not None and stale.now < line.probe_again_at:
            return False
        line.probe_again_at = stale.now + _timeout(stale)
        line.probe = Probe(stale.message_id, stale.epoch, stale.now)
        return True


def _read_probe(store: Store, line: Line, probe: Probe) -> None:
    audit = store.find(probe.message_id)
    if audit is None or audit.epoch > probe.epoch:
        line.probe = None
    if audit is None or audit.epoch == probe.epoch or audit.started_at is None:
        return
    if audit.enqueued_at is not None and audit.state != PENDING:
        line.move(Reach(audit.enqueued_at, audit.started_at))
        # The older copy that was claimed says nothing of those behind it, and this one that they are lost.
        if audit.enqueued_at >= probe.sent_at:
            line.probe_again_at = None


def _timeout(stale: Stale) -> timedelta:
    return timedelta(microseconds=stale.job_timeout)
