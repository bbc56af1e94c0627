"""Builds the steps that lead out of one world."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .promises import Broken, observed
from .protocol import Protocol
from .state import (
    BODY,
    HOLDING,
    TRANSACTION,
    Audit,
    Budget,
    Copy,
    Monitor,
    Owed,
    Process,
    Sender,
    Worker,
    World,
)
from .step import Step

#: What a step changes in its world, as :meth:`Turn.add` takes it.
Changes = dict[str, Any]


class Next(NamedTuple):
    step: Step
    world: World
    broken: tuple[Broken, ...]


class Turn:
    """A world, and the steps that the rules add to it.

    *whole* is the budget that the search began with, *depth* the number of
    commits that a failover may lose.
    """

    def __init__(self, protocol: Protocol, world: World, whole: Budget, depth: int) -> None:
        self.protocol = protocol
        self.world = world
        self.whole = whole
        self.depth = depth
        self.sender = world.sender
        self.audit = world.audit
        self.broker = world.broker
        self.budget = world.budget
        self.past = world.past
        self.holders = [w for p in world.processes for w in p.workers if w.phase in HOLDING]
        self.bodies = [w for w in self.holders if w.phase in {BODY, TRANSACTION}]
        self.locked = any(w.phase == TRANSACTION for w in self.bodies)
        self.next: list[Next] = []

    def statement(
        self, step: Step, after: Audit | None, *, taken: Changes, refused: Changes
    ) -> None:
        """A transition; nothing but its own transaction passes while transaction() has the row locked."""
        if self.locked:
            return
        if after is None:
            self.add(step._replace(refused=True), **refused)
        else:
            self.add(step, write=after, **taken)

    def add(
        self,
        step: Step,
        *,
        write: Audit | None = None,
        audit: Audit | None = None,
        history: tuple[Audit, ...] | None = None,
        sender: Sender | None = None,
        worker: tuple[int, int, Worker] | None = None,
        process: tuple[int, Process] | None = None,
        owe: Owed | None = None,
        monitor: tuple[int, Monitor] | None = None,
        monitors: tuple[Monitor, ...] | None = None,
        push: Copy | None = None,
        broker: tuple[Copy, ...] | None = None,
        stranded: tuple[Copy, ...] | None = None,
        processes: tuple[Process, ...] | None = None,
    ) -> None:
        """Something happens: *write* commits, while *audit* is what time does to it."""
        world = self.world
        if monitors is None:
            monitors = world.monitors
        sender_then = world.sender
        if write is not None:
            # Each write gives the audit another due_at.
            monitors = tuple(m._replace(unchanged=False) if m.unchanged else m for m in monitors)
            if sender_then.unchanged:
                sender_then = sender_then._replace(unchanged=False)
            if history is None and self.budget.failover:
                history = (*world.history, world.audit)[-self.depth :]
            audit = write
        if audit is None:
            audit = world.audit
        if monitor is not None:
            monitors = _with(monitors, *monitor)
        if processes is None:
            processes = world.processes
        if worker is not None:
            p, i, changed = worker
            old = processes[p]
            owed = old.owed if owe is None else tuple(sorted((*old.owed, owe)))
            process = (p, Process(_with(old.workers, i, changed), owed))
        if process is not None:
            processes = _with(processes, *process)
        if broker is None:
            broker = world.broker
        if push is not None:
            broker = tuple(sorted((*broker, push)))
        past, broken = observed(self, step, audit)
        world = World(
            sender_then if sender is None else sender,
            audit,
            world.history if history is None else history,
            broker,
            world.stranded if stranded is None else stranded,
            processes,
            monitors,
            _spent(world.budget, step.spend) if step.spend else world.budget,
            past,
        )
        self.next.append(Next(step, world, broken))

    def copy(self, epoch: int) -> Copy:
        """What the sender and the monitor push."""
        return Copy(epoch, 0, self.protocol.renews_stamps and self.past.ended)

    def used(self, *names: str) -> bool:
        return any(getattr(self.budget, n) != getattr(self.whole, n) for n in names)


def _with(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    # Who is who does not matter, so that one order stands for all.
    return tuple(sorted((*items[:index], item, *items[index + 1 :])))


@functools.cache
def _spent(budget: Budget, name: str) -> Budget:
    return budget._replace(**{name: getattr(budget, name) - 1})
