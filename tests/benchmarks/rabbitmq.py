"""How many messages per second one thread sends to RabbitMQ by ``send_many()``: together, or one after the other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import DurableMiddleware, durable_actor
from dramatiq_durable.pipelining import Pipelining

from .application import charge
from .rounds import Spread, in_turn, table
from .rows import empty
from .servers import Servers

#: How many messages a list has, and how many lists are sent in a round.
LISTS = {3: 50, 64: 15, 3_000: 1}


class Lists:
    """One durable actor on one broker, whose lists are pushed as *pushes* says."""

    def __init__(
        self,
        broker: dramatiq.Broker,
        database_url: str,
        pushes: Callable[[dramatiq.Broker], Pipelining] | None = None,
    ) -> None:
        self.broker = broker
        self.durable = DurableMiddleware(database_url)
        broker.add_middleware(self.durable)
        self.durable.create_tables()
        self._actor: Any = durable_actor(charge, broker=broker)
        if pushes is not None:
            self.durable.pipelining = pushes(broker)

    def send(self, length: int) -> tuple[float, float]:
        """Messages per second, and microseconds of this process's CPU for each."""
        lists = LISTS[length]
        empty(self.durable.store)
        self.broker.flush_all()
        arguments = [(n, "EUR", 1995, "for the order of last Tuesday, " * 5) for n in range(length)]
        began, used = time.perf_counter(), time.process_time()
        for _ in range(lists):
            self._actor.send_many(arguments)
        took, used = time.perf_counter() - began, time.process_time() - used
        return lists * length / took, used / (lists * length) * 1e6

    def close(self) -> None:
        for store in self.durable.stores():
            store.connections.close()
        self.broker.close()


def run(rounds: int) -> Iterator[str]:
    with Servers() as servers, ExitStack() as stack:

        def lists(make: Callable[[str], dramatiq.Broker], server: Any, *pushes: Any) -> Lists:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            database = stack.enter_context(servers.database("postgres", folder))
            made = Lists(make(stack.enter_context(server.fresh())), database.url, *pushes)
            stack.callback(made.close)
            return made

        made = {
            "RabbitMQ, one after the other": lists(_confirming, servers.rabbitmq, Pipelining),
            "RabbitMQ, 64 together": lists(_confirming, servers.rabbitmq),
            "RabbitMQ without confirmations": lists(_silent, servers.rabbitmq),
            "Redis, 64 together": lists(_redis, servers.redis),
        }
        yield (
            f"One thread sends lists in each of {rounds} rounds, to PostgreSQL, which syncs each commit, and to the broker: "
            "median (least-greatest). CPU in µs of the sender per message."
        )
        for length in LISTS:
            cases = {name: functools.partial(each.send, length) for name, each in made.items()}
            results = in_turn(cases, rounds)
            rates = {name: Spread([rate for rate, _ in results[name]]) for name in results}
            first = rates["RabbitMQ, one after the other"]
            yield table(
                [f"lists of {length:,}", "per second", "", "CPU"],
                [
                    [name, rate, f"x {rate.over(first)}", Spread([cpu for _, cpu in results[name]])]
                    for name, rate in rates.items()
                ],
            )


def _confirming(url: str) -> dramatiq.Broker:
    return RabbitmqBroker(url=url, confirm_delivery=True)


def _silent(url: str) -> dramatiq.Broker:
    return RabbitmqBroker(url=url)


def _redis(url: str) -> dramatiq.Broker:
    return RedisBroker(url=url)
