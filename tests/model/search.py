"""Takes every step from every world that can be reached, and looks for broken promises."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dramatiq_durable.models import FINISHED

from . import events, monitors, senders, workers
from .promises import Broken
from .protocol import Protocol
from .state import (
    FETCHED,
    IDLE_WORKER,
    IN_TRANSACTION,
    MISSING,
    NEW,
    RESTING_MONITOR,
    SENT,
    Budget,
    Past,
    Process,
    Sender,
    World,
)
from .step import Step
from .turn import Next, Turn


@dataclass(frozen=True)
class Space:
    """How many of everybody there are, and how often the faults of *budget* may happen."""

    budget: Budget
    processes: int = 2
    threads: int = 1  # of each process
    monitors: int = 1
    in_transaction: bool = False  # the message is sent in a transaction of the caller's
    depth: int = 1  # commits that a failover may lose

    def start(self) -> World:
        return World(
            sender=Sender(IN_TRANSACTION if self.in_transaction else NEW),
            audit=MISSING,
            history=(),
            broker=(),
            stranded=(),
            processes=(Process((IDLE_WORKER,) * self.threads),) * self.processes,
            monitors=(RESTING_MONITOR,) * self.monitors,
            budget=self.budget,
            past=Past(),
        )


@dataclass
class Found:
    """The worlds of a space, in the order of their distance from its start."""

    worlds: list[World]
    parents: list[tuple[int, Step]] = field(default_factory=list)
    steps: int = 0
    cut: bool = False  # there are more
    #: By promise: the world in which it was broken first, and the step that did it.
    broken: dict[Broken, tuple[int, Step | None]] = field(default_factory=dict)
    #: What each transition that was not refused has made of which state.
    arrows: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))

    def trace(self, broken: Broken) -> str:
        """The shortest way to it, a step a line, each with the audit and the copies that it left."""
        world, last = self.broken[broken]
        lines = [] if last is None else [str(last)]
        while world:
            parent, step = self.parents[world]
            lines.append(f"{step!s:60} {_outline(self.worlds[world])}".rstrip())
            world = parent
        numbered = (f"{n:3}. {line}" for n, line in enumerate(reversed(lines), 1))
        return "\n".join([f"{broken.name}: {broken.value}", *numbered])

    def __str__(self) -> str:
        return "\n\n".join(map(self.trace, self.broken))


def successors(protocol: Protocol, space: Space, world: World) -> list[Next]:
    turn = Turn(protocol, world, space.budget, space.depth)
    for rules in (senders, workers, monitors, events):
        rules.steps(turn)
    return turn.next


def search(
    protocol: Protocol, space: Space, *, until: Collection[Broken] = (), limit: int | None = None
) -> Found:
    """Look everywhere, or until each promise of *until* is found broken, or *limit* worlds are found.

    A protocol that breaks promises may have no end of worlds.
    """
    start = space.start()
    found = Found([start], [(0, Step("", ""))])
    numbers = {start: 0}
    before: list[list[int]] = [[]]  # the worlds from which a step without a fault leads here
    queue = deque([0])
    while queue:
        here = queue.popleft()
        state = found.worlds[here].audit.state
        for step, world, broken in successors(protocol, space, found.worlds[here]):
            found.steps += 1
            number = numbers.get(world)
            if number is None:
                number = numbers[world] = len(found.worlds)
                found.worlds.append(world)
                found.parents.append((here, step))
                before.append([])
                queue.append(number)
            if not step.is_fault:
                before[number].append(here)
            if not step.refused:
                found.arrows[step.what].add((state, world.audit.state))
            for promise in broken:
                found.broken.setdefault(promise, (here, step))
        if until and found.broken.keys() >= set(until):
            return found
        if limit is not None and len(found.worlds) > limit:
            found.cut = True
            return found
    lost = _first_lost(found.worlds, before)
    if lost is not None:
        found.broken[Broken.LOST] = (lost, None)
    return found


def _first_lost(worlds: list[World], before: list[list[int]]) -> int | None:
    """A world that owes the job its end, and from which no path without another fault leads there."""
    hopeful = bytearray(len(worlds))
    trail = [number for number, world in enumerate(worlds) if _has_ended(world)]
    while trail:
        number = trail.pop()
        if not hopeful[number]:
            hopeful[number] = 1
            trail += before[number]
    owing: Iterable[int] = (n for n, world in enumerate(worlds) if _is_owed(world))
    return next((n for n in owing if not hopeful[n]), None)


def _has_ended(world: World) -> bool:
    past = world.past
    if world.audit != MISSING:
        return world.audit.state in FINISHED
    return past.ended or past.unsent or (past.failed_over and past.effects > 0)


def _is_owed(world: World) -> bool:
    if world.audit != MISSING:
        return True
    if not world.past.failed_over:
        return world.sender.phase == SENT
    # What the database has lost comes back with a copy that a worker has still to claim.
    waiting = world.broker or any(w.phase == FETCHED for p in world.processes for w in p.workers)
    return bool(waiting) and not world.past.ancient


def _outline(world: World) -> str:
    audit = world.audit
    copies = ", ".join(str(copy.epoch) for copy in world.broker) or "none"
    if audit == MISSING:
        return f"no audit; copies: {copies}"
    return f"{audit.state}, epoch {audit.epoch}, due {audit.due}; copies: {copies}"
