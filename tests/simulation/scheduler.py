"""Threads that run one at a time and hand each other a baton, in an order that a seed decides.

The clock stands still while anybody can run, and then moves to the next moment somebody waits for.
"""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Callable

STEPS = (
    10_000  # after which a simulation that has not come to rest is taken for one that never will
)

START = 1_800_000_000  # when a simulation begins, in seconds since 1970
LATE = 1e-6  # seconds that whoever waits for a moment sleeps on after it
NAP = 0.5  # the shortest sleep: who looks every few milliseconds sees nothing new so soon

_tasks: dict[int, Task] = {}


class Crashed(BaseException):
    """Unwinds the threads of a process that has crashed; whatever they still try raises it again."""


class Process:
    """What crashes and is paused as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.crashed = False
        self.paused_until = 0.0


class Task:
    """A thread of a process."""

    def __init__(self, scheduler: Scheduler, process: Process, name: str) -> None:
        self.scheduler = scheduler
        self.process = process
        self.name = name
        self.gate = threading.Lock()
        self.gate.acquire()
        self.run: Callable[[], object] | None = None  # until its thread is started
        self.ready: Callable[[], object] | None = None
        self.moment: Callable[[], float | None] | None = None
        self.interrupt: type[BaseException] | None = None  # raised when it goes on

    def is_ready(self, now: float) -> bool:
        if self.process.crashed:
            return True
        if self.process.paused_until > now:
            return False
        if self.ready is None and self.moment is None:
            return True
        if self.ready is not None and self.ready():
            return True
        moment = self.moment() if self.moment is not None else None
        return moment is not None and moment <= now

    def next_moment(self) -> float | None:
        """When it may become ready without anybody's doing."""
        if self.ready is None and self.moment is None:
            return self.process.paused_until
        moment = self.moment() if self.moment is not None else None
        return None if moment is None else max(moment, self.process.paused_until)


def current_task() -> Task | None:
    """The task whose thread this is; None outside of a simulation."""
    return task_of(threading.get_ident())


def task_of(thread: int) -> Task | None:
    return _tasks.get(thread)


class Scheduler:
    """Runs tasks until all wait for what never comes; *eagerness* to switch from 0 to 1."""

    def __init__(self, rng: random.Random, eagerness: float) -> None:
        self.now = 0.0  # seconds since START
        self.tasks: list[Task] = []
        self.steps = 0
        self.exhausted = False
        self.errors: list[BaseException] = []
        self._rng = rng
        self._eagerness = eagerness
        self._ending = False
        self._current: Task | None = None
        self._main = threading.Lock()
        self._main.acquire()

    @property
    def current(self) -> Task:
        assert self._current is not None
        return self._current

    def start(self, process: Process, name: str, run: Callable[[], object]) -> None:
        task = Task(self, process, name)
        task.run = run
        self.tasks.append(task)

    def run(self) -> None:
        """Let the tasks run until they rest, then unwind them."""
        self._turn_to(self._choose())
        self._main.acquire()
        self._ending = True
        while self.tasks:
            task = self.tasks[0]
            if task.run is not None:
                self.tasks.remove(task)
            else:
                self._turn_to(task)
                self._main.acquire()

    def switch(self) -> None:
        """Where others may run."""
        task = self.current
        self.check()
        chosen = self._choose()
        if chosen is not task:
            self._turn_to(chosen)
            task.gate.acquire()
        self.check()
        interrupt, task.interrupt = task.interrupt, None
        if interrupt is not None:
            raise interrupt

    def check(self) -> None:
        """Raise Crashed if the current thread should be no more."""
        if self.current.process.crashed or self._ending:
            raise Crashed

    def wait(
        self,
        ready: Callable[[], object] | None = None,
        moment: Callable[[], float | None] | None = None,
    ) -> None:
        """Run again when *ready* says so, or *moment* has come."""
        self.current.ready, self.current.moment = ready, moment
        self.switch()

    def sleep(self, seconds: float) -> None:
        end = self.now + max(seconds, NAP) + LATE
        self.wait(moment=lambda: end)

    def _choose(self) -> Task | None:
        self.steps += 1
        if self.steps > STEPS:
            self.exhausted = True
            return None
        while True:
            now = self.now
            ready = [task for task in self.tasks if task.is_ready(now)]
            if ready:
                break
            moments = [m for m in (task.next_moment() for task in self.tasks) if m is not None]
            if not moments:
                return None
            self.now = min(moments)
        chosen = self._current
        if chosen not in ready or self._rng.random() < self._eagerness:
            chosen = ready[int(self._rng.random() * len(ready))]
        assert chosen is not None
        chosen.ready = chosen.moment = None
        return chosen

    def _turn_to(self, task: Task | None) -> None:
        self._current = task
        if task is None:
            self._main.release()
        elif task.run is None:
            task.gate.release()
        else:
            context = contextvars.Context()
            run, task.run = task.run, None
            thread = threading.Thread(target=context.run, args=(self._run, task, run), daemon=True)
            thread.start()

    def _run(self, task: Task, run: Callable[[], object]) -> None:
        _tasks[threading.get_ident()] = task
        try:
            if not task.process.crashed:
                run()
        except Crashed:
            pass
        except BaseException as error:  # noqa: BLE001 - it fails the simulation, which goes on to its end
            self.errors.append(error)
        finally:
            del _tasks[threading.get_ident()]
            self.tasks.remove(task)
            self._turn_to(None if self._ending else self._choose())
