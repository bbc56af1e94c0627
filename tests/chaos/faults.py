"""The faults: what each breaks, for how long, and how it is healed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer

from .crew import FAKETIME, Place
from .points import arm
from .servers import File, is_small_disk

if TYPE_CHECKING:
    from .lane import Lane

Heal = Callable[[], object]

CLOCK_SECONDS = 300


@dataclass(frozen=True)
class Fault:
    """*strike* breaks the *subject* and returns how it is healed, after *seconds*; None: it is over at once."""

    name: str
    subject: str
    strike: Callable[[], Heal | None]
    seconds: float = 0.0


Draw = Callable[["Lane"], "Fault | None"]


def kill(role: str) -> Draw:
    def draw(lane: Lane) -> Fault | None:
        place = lane.crew.pick(role, lane.rng)
        return None if place is None else Fault(f"kill:{role}", place.name, place.kill)

    return draw


def stop(role: str) -> Draw:
    """SIGSTOP, for longer than any lease."""

    def draw(lane: Lane) -> Fault | None:
        place = lane.crew.pick(role, lane.rng)
        if place is None:
            return None
        lease = lane.setting.push_lease if role == "monitor" else lane.setting.lease
        seconds = lease * lane.rng.uniform(1.2, 1.8)
        return Fault(f"stop:{role}", place.name, lambda: _stop(place), seconds)

    return draw


def _stop(place: Place) -> Heal:
    place.stopped = True
    place.signal(signal.SIGSTOP)

    def go_on() -> None:
        place.stopped = False
        place.signal(signal.SIGCONT)

    return go_on


def clock(role: str) -> Draw:
    """The process is replaced by one whose clock is wrong."""

    def draw(lane: Lane) -> Fault | None:
        place = lane.crew.pick(role, lane.rng)
        # The processes' clocks are SQLite's; and what nobody has an audit of is judged by them
        # to be older than half of the retention.
        exempt = isinstance(lane.database, File) or lane.setting.retention < 10 * CLOCK_SECONDS
        if place is None or not FAKETIME or exempt:
            return None
        wrong = lane.rng.choice([-CLOCK_SECONDS, CLOCK_SECONDS])

        def strike() -> Heal:
            place.clock = wrong
            place.kill()
            return lambda: _reset(place)

        return Fault(f"kill:clock-{role}", place.name, strike, 8.0)

    return draw


def _reset(place: Place) -> None:
    place.clock = 0


def point(role: str) -> Draw:
    """The next process that comes to one of the named points dies there, and notes that itself."""

    def draw(lane: Lane) -> Fault | None:
        lane.armed.append(arm(lane.setting.path, "strikes", lane.next_point(role)))
        return None

    return draw


def off(lane: Lane) -> Fault:
    """All workers are told to end, and a backlog grows until new ones start."""

    def strike() -> Heal:
        lane.crew.off("worker")
        return lambda: lane.crew.on("worker")

    return Fault("off:workers", "workers", strike, lane.rng.uniform(*lane.backlog))


def forget(lane: Lane) -> Fault:
    return Fault("forget:messages", "broker", lane.broker.forget)


def restart_broker(lane: Lane) -> Fault:
    """Redis keeps nothing; RabbitMQ keeps what it has written down."""
    return Fault("kill:broker", "broker", lane.broker.restart, lane.rng.uniform(0.5, 2))


def restart_database(lane: Lane) -> Fault | None:
    database = lane.database
    if isinstance(database, File):
        return Fault("lock:database", "database", database.lock, lane.rng.uniform(1, 7))
    return Fault("kill:database", "database", database.restart, lane.rng.uniform(0.5, 2))


def fill_disk(lane: Lane) -> Fault | None:
    database = lane.database
    if not isinstance(database, File) or not is_small_disk(database):
        return None
    return Fault("fill:disk", "database", database.fill, lane.rng.uniform(1, 3))


def limit_memory(lane: Lane) -> Fault | None:
    broker = lane.broker
    if not isinstance(broker.server, RedisServer):
        return None

    def strike() -> Heal:
        broker.limit_memory("1mb")
        return lambda: broker.limit_memory("0")

    return Fault("maxmemory:broker", "broker", strike, 2.0)


def _network(
    name: str, strike: Callable[[Lane, Proxy], Heal | None], shortest: float = 0, longest: float = 0
) -> Callable[[str], Draw]:
    """A fault of the network before the broker or the database; a file has none."""

    def of(subject: str) -> Draw:
        def draw(lane: Lane) -> Fault | None:
            remote = lane.broker if subject == "broker" else lane.database
            if isinstance(remote, File):
                return None
            proxy, seconds = remote.proxy, lane.rng.uniform(shortest, longest)
            return Fault(f"{name}:{subject}", subject, lambda: strike(lane, proxy), seconds)

        return draw

    return of


def _cut(_: Lane, proxy: Proxy) -> None:
    proxy.cut()


def _down(_: Lane, proxy: Proxy) -> Heal:
    proxy.down()
    return proxy.up


def _delay(lane: Lane, proxy: Proxy) -> Heal:
    proxy.delay = lane.rng.uniform(0.02, 0.15)
    return lambda: setattr(proxy, "delay", 0.0)


def _lose_reply(lane: Lane, proxy: Proxy) -> Heal:
    """What is asked is done, but its answer does not arrive."""
    proxy.lose_the_reply_to(lane.rng.choice(LOST))
    return lambda: None


#: In the requests whose replies are lost: of a send, a claim, a completion, a mark, of anything.
LOST = ["INSERT INTO", "start_count", "completed", "enqueue_count", "durable_epoch", "", ""]

NETWORK = (
    _network("cut", _cut),
    _network("down", _down, 0.3, 3),
    _network("delay", _delay, 2, 2),
    _network("lose-reply", _lose_reply, 1, 1),
)


def left_out(lane: Lane) -> list[str]:
    """What cannot be broken in this lane, and why."""
    reasons = []
    if isinstance(lane.database, File):
        reasons.append("clocks, for each process's own is SQLite's")
    elif not FAKETIME:
        reasons.append("clocks, for libfaketime is not installed")
    elif lane.setting.retention < 10 * CLOCK_SECONDS:
        reasons.append("clocks, for the retention is short")
    if not isinstance(lane.database, File):
        reasons.append("a full disk, for only SQLite has a small one")
    elif not is_small_disk(lane.database):
        reasons.append("a full disk, for only root can mount a small one")
    if not isinstance(lane.broker.server, RedisServer):
        reasons.append("too little memory, for that is Redis's")
    return reasons


def all_draws(lane: Lane) -> list[Draw]:
    """One round of everything that can be broken in this lane."""
    roles = ["producer", "worker", "monitor"]
    rounds: list[Draw] = [
        *map(kill, roles),
        *map(stop, roles),
        *(point(role) for role in ["producer", *["worker"] * 4, "monitor"]),
        off,
        forget,
        restart_database,
        fill_disk,
        limit_memory,
    ]
    if not lane.setting.plain:
        rounds += map(clock, roles)
    rounds += [fault(subject) for fault in NETWORK for subject in ("broker", "database")]
    slow = isinstance(lane.broker.server, RabbitmqServer)
    if not slow or not lane.rounds:
        rounds.append(restart_broker)
    return rounds
