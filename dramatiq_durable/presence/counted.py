"""RabbitMQ, which knows how many messages wait; and Dramatiq's StubBroker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import dramatiq
from dramatiq.common import dq_name, q_name
from dramatiq.logging import get_logger

from ..store import Stale, Store
from .base import BATCH, Answer, Presence, queues_of

#: Seconds between two looks for lost messages, each a round trip for every queue.
LOOK_EVERY = 5.0

#: A message whose audit is younger may be on its way into its queue.
GRACE = timedelta(seconds=5)

_NOT_FOUND = 404  # of AMQP

#: What a consumer may hold, beyond what its queue counts as waiting.
MOST_PREFETCHED = 256


@dataclass(frozen=True)
class Queue:
    """How many messages wait in a queue, and how many consumers it has.

    A queue that is gone has neither; None stands for consumers that cannot be counted.
    """

    ready: int
    consumers: int | None = None


#: Counts a queue, by its name.
Counts: TypeAlias = Callable[[str], Queue]


class CountedPresence(Presence):
    """What follows from the number of messages in a queue.

    An empty queue holds no message but those that its consumers have fetched.
    If it was not empty before, and more audits wait for it than its consumers can
    hold, then it has lost them.  (The consumers of a delay queue hold any number.)
    """

    def __init__(self, broker: dramatiq.Broker, counts: Counts) -> None:
        self.logger = get_logger(__name__, type(self))
        self._broker: Any = broker
        self._counts = counts
        self._expected = False
        self._filled: set[str] = set()  # queues that were not empty at the last look
        self._found: dict[str, Queue] = {}
        self._emptied: dict[str, Queue] = {}
        self._asked: dict[str, Answer] = {}  # since the last look, by queue
        self._look_at = 0.0

    def expect(self) -> None:
        self._expected = True

    def look(self, *, read_only: bool = False) -> None:
        self._asked, self._emptied = {}, {}
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY
        names = [n for queue in list(self._broker.queues) for n in (queue, dq_name(queue))]
        try:
            self._found = {name: self._counts(name) for name in names}
        except Exception as error:  # noqa: BLE001 - the errors of drivers have no common base
            self.logger.debug("The broker tells nothing (%s).", type(error).__name__)
            return
        if self._expected:
            self._filled, self._expected = set(names), False
        for name, queue in self._found.items():
            if queue.ready:
                self._filled.add(name)
            elif name in self._filled:
                self._emptied[name] = queue

    def ask(self, audits: Sequence[Stale]) -> list[Answer]:
        answers = []
        for stale in audits:
            of_queues = {self._of_queue(queue) for queue in queues_of(stale, self._broker)}
            answers.append(Answer.GONE if of_queues == {Answer.GONE} else Answer.UNKNOWN)
        return answers

    def _of_queue(self, queue: str) -> Answer:
        if queue not in self._asked:
            try:
                waiting = any(self._counts(name).ready for name in (queue, dq_name(queue)))
                self._asked[queue] = Answer.UNKNOWN if waiting else Answer.GONE
            except Exception as error:  # noqa: BLE001 - as above
                self.logger.debug("The broker tells nothing (%s).", type(error).__name__)
                self._asked[queue] = Answer.UNKNOWN
        return self._asked[queue]

    def lost(self, store: Store) -> Iterator[list[Stale]]:
        if not self._emptied:
            return
        now, last = store.clock(), None
        missing: dict[str, list[Stale]] = {name: [] for name in self._emptied}
        while batch := store.with_broker(BATCH, created_by=now - GRACE, after=last):
            last = batch[-1]
            for stale in batch:
                name = self._emptied_of(stale, now)
                if name is not None:
                    missing[name].append(stale)
            for name, audits in missing.items():
                if len(audits) > self._most_held(name):
                    yield audits
                    missing[name] = []
        for name, audits in missing.items():
            if audits and not self._most_held(name):
                yield audits

    def _most_held(self, name: str) -> float:
        """How many messages its consumers may hold, at the most."""
        consumers = self._emptied[name].consumers
        is_unlimited = consumers is None or (consumers > 0 and q_name(name) != name)
        return math.inf if is_unlimited else MOST_PREFETCHED * (consumers or 0)

    def _emptied_of(self, stale: Stale, now: datetime) -> str | None:
        """The emptied queue that its message must have been in."""
        name = stale.queue_name
        if stale.starts_at > stale.now + GRACE:
            name = dq_name(name)
        elif stale.starts_at > now - GRACE:
            return None  # a monitor has sent it since, or it moves from its delay queue
        elif stale.starts_at - stale.created_at > timedelta(seconds=1):
            # It was delayed, and may still be there if nobody consumes.
            delayed = self._found.get(dq_name(name))
            name = name if delayed is not None and not delayed.ready else ""
        return name if name in self._emptied else None

    def settle(self) -> None:
        self._filled -= self._emptied.keys()


def stub_counts(broker: Any) -> Counts:
    return lambda name: Queue(broker.queues[name].qsize())


def rabbitmq_counts(broker: Any) -> Counts:
    """Counts the queues of a RabbitmqBroker, and has Dramatiq declare those that are gone when it next sends."""
    import pika

    def count(name: str) -> Queue:
        try:
            channel = broker.connection.channel()
            method = channel.queue_declare(queue=name, passive=True).method
            channel.close()
        except pika.exceptions.ChannelClosedByBroker as error:
            # A queue whose node is down is not found either, and comes back with its messages.
            if error.reply_code != _NOT_FOUND or "no queue" not in error.reply_text:
                raise
            broker.queues_pending.add(q_name(name))
            return Queue(0, 0)
        except pika.exceptions.AMQPError:
            del broker.connection  # the next use makes a new one
            raise
        return Queue(method.message_count, method.consumer_count)

    return count
