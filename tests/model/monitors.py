"""What the monitors do next."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq_durable.models import FINISHED

from .state import (
    CLEANING,
    CONFIRMING,
    LATE_MARK,
    MARKED,
    NOW,
    READ,
    RESTING,
    RESTING_MONITOR,
    SETTING_ASIDE,
    UNMARKING,
    WAITING,
    Audit,
    Monitor,
)
from .step import Step
from .turn import Changes, Turn


def steps(turn: Turn) -> None:
    monitors = turn.world.monitors
    for m, monitor in enumerate(monitors):
        if not m or monitor != monitors[m - 1]:
            OneMonitor(turn, m, monitor).steps()


class OneMonitor:
    def __init__(self, turn: Turn, m: int, monitor: Monitor) -> None:
        self.turn = turn
        self.protocol = turn.protocol
        self.m = m
        self.monitor = monitor
        self.rests: Changes = {"monitor": (m, RESTING_MONITOR)}

    def steps(self) -> None:
        RULES[self.monitor.phase](self)
        if self.monitor.phase != RESTING and self.turn.budget.monitor_dies:
            self.turn.add(Step("monitor", "dies", spend="monitor_dies"), **self.rests)

    def at(self, phase: str, *, unchanged: bool | None = None) -> Changes:
        same = self.monitor.unchanged if unchanged is None else unchanged
        return {"monitor": (self.m, self.monitor._replace(phase=phase, unchanged=same))}

    def rest(self) -> None:
        audit = self.turn.audit
        if audit.due == NOW:
            read = Monitor(READ, audit.state, audit.epoch, audit.enqueue_count, unchanged=True)
            self.turn.add(Step("monitor", "read a stale audit"), monitor=(self.m, read))
        if audit.state in FINISHED and audit.old:
            select = Step("monitor", "select an old audit")
            self.turn.add(select, monitor=(self.m, Monitor(CLEANING)))

    def judge(self) -> None:
        turn, protocol, monitor = self.turn, self.protocol, self.monitor
        if protocol.hopeless(turn.audit):
            self.write("expire", protocol.expire(turn.audit, monitor))
        elif protocol.holds(turn.audit, monitor, waits=self.waits()):
            turn.add(Step("monitor", "finds its message in the broker"), **self.at(WAITING))
        elif protocol.marks_before_push:
            after = protocol.mark(turn.audit, monitor)
            step, marked = Step("monitor", "mark"), self.at(MARKED, unchanged=True)
            turn.statement(step, after, taken=marked, refused=self.rests)
        else:
            step, copy = Step("monitor", "push unasked"), turn.copy(monitor.epoch)
            turn.add(step, **self.at(LATE_MARK), push=copy)

    def waits(self) -> bool:
        """Whether the broker can tell that the message waits in it."""
        turn = self.turn
        copies = turn.broker + turn.world.stranded
        return bool(turn.whole.hold) and any(c.epoch == turn.audit.epoch for c in copies)

    def hold(self) -> None:
        self.write("hold", self.protocol.hold(self.turn.audit))

    def push(self) -> None:
        turn, copy = self.turn, self.turn.copy(self.monitor.epoch)
        pushed = self.at(CONFIRMING) if self.protocol.confirms else self.rests
        turn.add(Step("monitor", "push"), **pushed, push=copy)
        if turn.budget.push_refused:
            refused = Step("monitor", "push refused", spend="push_refused")
            turn.add(refused, **self.at(UNMARKING))
            lost = Step("monitor", "push done, its answer lost", spend="push_refused")
            turn.add(lost, **self.at(UNMARKING), push=copy)
        if turn.budget.unsendable:
            bad = Step("monitor", "cannot send it", spend="unsendable")
            turn.add(bad, **self.at(SETTING_ASIDE))

    def confirm(self) -> None:
        self.write("confirm", self.protocol.confirm(self.turn.audit, self.monitor))

    def unmark(self) -> None:
        self.write("unmark", self.protocol.unmark(self.turn.audit, self.monitor))

    def set_aside(self) -> None:
        self.write("set_aside", self.protocol.set_aside(self.turn.audit, self.monitor))

    def mark_late(self) -> None:
        self.write("mark late", self.protocol.mark(self.turn.audit, self.monitor))

    def cleanup(self) -> None:
        self.write("cleanup", self.protocol.cleanup(self.turn.audit))

    def write(self, what: str, after: Audit | None) -> None:
        step = Step("monitor", what)
        self.turn.statement(step, after, taken=self.rests, refused=self.rests)


RULES: dict[str, Callable[[OneMonitor], None]] = {
    RESTING: OneMonitor.rest,
    READ: OneMonitor.judge,
    WAITING: OneMonitor.hold,
    MARKED: OneMonitor.push,
    CONFIRMING: OneMonitor.confirm,
    UNMARKING: OneMonitor.unmark,
    SETTING_ASIDE: OneMonitor.set_aside,
    LATE_MARK: OneMonitor.mark_late,
    CLEANING: OneMonitor.cleanup,
}
