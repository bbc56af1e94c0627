"""Faults, drawn by a seed: each kind once, in any order, and then again."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pika
import redis

from .lane import Lane
from .settings import JOB_TIMEOUT, LEASE

GAP = (0.5, 2.0)  # seconds between two faults


class Injector:
    def __init__(self, lane: Lane, *, backlogs: bool = False) -> None:
        self.done: Counter[str] = Counter()
        self._lane = lane
        self._ledger = lane.ledger
        self._random = random.Random(lane.seed)
        self._deck: list[str] = []
        self._faults = self._all()
        if backlogs:
            self._faults["no consumers"] = self._no_consumers

    def run(self, seconds: float, least: int) -> None:
        """Inject for *seconds*, and longer until there were *least* faults."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or sum(self.done.values()) < least:
            time.sleep(self._random.uniform(*GAP))
            if not self._deck:
                self._deck = list(self._faults)
                self._random.shuffle(self._deck)
            self.inject(self._deck.pop())

    def inject(self, fault: str) -> None:
        self._faults[fault]()
        self.done[fault] += 1

    def _all(self) -> dict[str, Callable[[], None]]:
        lane = self._lane
        faults: dict[str, Callable[[], None]] = {
            "kill a producer": lambda: self._kill("producer"),
            "kill a worker": lambda: self._kill("worker"),
            "kill a monitor": lambda: self._kill("monitor"),
            "stop a worker past its lease": lambda: self._stop("worker", 1.5 * LEASE),
            "stop a monitor": lambda: self._stop("monitor", 0.5 * LEASE),
            "cut the broker's connections": lambda: self._cut("broker", 0.0),
            "broker unreachable": lambda: self._cut("broker", self._short()),
            "drop a reply of the broker": lambda: lane.broker_proxy.lose_the_reply_to(""),
        }
        if lane.kinds[0] == "redis":
            faults |= {
                "FLUSHALL": self._flush,
                "broker restarted without persistence": self._restart_broker,
                "maxmemory": self._out_of_memory,
            }
        else:
            faults |= {
                "queue deleted": lambda: self._queue("delete"),
                "queue purged": lambda: self._queue("purge"),
            }
        if lane.database is None:
            faults["database locked"] = self._lock
            if lane.disk.can_be_full:
                faults["disk full"] = self._full
        else:
            faults |= {
                "cut the database's connections": lambda: self._cut("database", 0.0),
                "database unreachable": lambda: self._cut("database", self._short()),
                "drop a reply of the database": self._drop_reply_of_database,
                "database killed": self._kill_database,
            }
        return faults

    def _short(self) -> float:
        return self._random.uniform(0.5, 0.75 * LEASE)

    @contextmanager
    def _outage(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._ledger.write("OUTAGE", what, f"{time.monotonic() - began:.3f}")

    def _kill(self, role: str) -> None:
        pid = self._random.choice(self._lane.pids(role))
        self._signal(pid, signal.SIGKILL)
        self._ledger.write("KILL", pid, "injected")

    def _stop(self, role: str, seconds: float) -> None:
        pid = self._random.choice(self._lane.pids(role))
        began = time.monotonic()
        self._signal(pid, signal.SIGSTOP)
        time.sleep(seconds)
        self._signal(pid, signal.SIGCONT)
        self._ledger.write("PAUSE", pid, f"{time.monotonic() - began:.3f}")

    def _no_consumers(self) -> None:
        with self._outage("consumers"), self._lane.without("worker"):
            time.sleep(2 * JOB_TIMEOUT)

    def _signal(self, pid: int, signum: signal.Signals) -> None:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return  # it has died of itself, and its supervisor has not noticed yet

    def _cut(self, what: str, seconds: float) -> None:
        proxy = self._lane.broker_proxy if what == "broker" else self._lane.database_proxy
        with self._outage(what):
            proxy.down()
            time.sleep(seconds)
            proxy.up()

    def _drop_reply_of_database(self) -> None:
        with self._outage("database"):
            self._lane.database_proxy.lose_the_reply_to("")
            time.sleep(0.5)

    def _flush(self) -> None:
        with redis.Redis.from_url(self._lane.broker.url) as client:
            client.flushall()

    def _restart_broker(self) -> None:
        with self._outage("broker"):
            self._lane.broker.kill()
            self._lane.broker.start()

    def _out_of_memory(self) -> None:
        with redis.Redis.from_url(self._lane.broker.url) as client, self._outage("broker"):
            client.config_set("maxmemory", 1)
            time.sleep(self._short())
            client.config_set("maxmemory", 0)

    def _queue(self, end: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(self._lane.broker.url)) as connection:
            channel = connection.channel()
            name = self._random.choice(["default", "default.DQ"])
            if end == "delete":
                channel.queue_delete(name)
            else:
                channel.queue_purge(name)

    def _kill_database(self) -> None:
        database = self._lane.database
        assert database is not None
        with self._outage("database"):
            database.kill()
            time.sleep(0.5)
            database.start()

    def _lock(self) -> None:
        path = self._lane.database_url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
        with self._outage("database"):
            time.sleep(self._short())
        connection.execute("ROLLBACK")
        connection.close()

    def _full(self) -> None:
        with self._outage("database"):
            self._lane.disk.fill()
            time.sleep(self._short())
            self._lane.disk.empty()
