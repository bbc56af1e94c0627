"""Redis: it knows each message, and a key of ours tells when it has forgotten them all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name
from dramatiq.logging import get_logger

from ..store import Stale, Store
from .base import BATCH, Answer, Presence, queues_of

#: A search takes no more than one part in this of a monitor's time, however often keys are evicted.
SEARCH_SHARE = 10

#: A message whose audit is younger may be on its way to Redis.
GRACE = timedelta(seconds=1)

# Of several monitors one makes the new canary; what is said of it is its server's run_id and a token.
_RENEW = """
local known = redis.call('get', KEYS[2])
if redis.call('exists', KEYS[1]) == 0 or not known or string.sub(known, 1, #ARGV[1]) ~= ARGV[1] then
    known = ARGV[1] .. ARGV[2]
    redis.call('set', KEYS[1], '1')
    redis.call('set', KEYS[2], known)
end
return known
"""

_WHICH_ARE_THERE = """
local there = {}
for n, id in ipairs(ARGV) do there[n] = redis.call('hexists', KEYS[1], id) end
return there
"""


class RedisPresence(Presence):
    """What Redis knows of its messages.

    ``<namespace>:__durable_canary__`` is there as long as nothing was lost.  It
    is never read but by EXISTS, which does not make it look used, so that a Redis
    that evicts what was used least begins with it.  ``…:__durable_server__`` says which server has it, for
    one that was started again, or a replica that took over, may lack what came last, and which
    canary it is: each monitor that sees a new one compares its own open audits with what Redis has.
    """

    def __init__(self, broker: RedisBroker) -> None:
        self.logger = get_logger(__name__, type(self))
        self._broker: Any = broker
        self._client: Any = broker.client
        self._name = broker.namespace
        self._canary, self._server = (
            f"{self._name}:__durable_{key}__" for key in ("canary", "server")
        )
        self._heartbeats = f"{self._name}:__heartbeats__"
        self._renew = broker.client.register_script(_RENEW)
        self._which_are_there = broker.client.register_script(_WHICH_ARE_THERE)
        self._expected = False  # what is not there at the first look was lost
        self._settled: bytes | None = None  # the canary since which nothing was lost
        self._sought: bytes | None = None  # the one because of which a search is to be made
        self._told: bytes | None = None  # the last one that was logged
        self._began = 0.0
        self._not_before = 0.0
        self._beats: dict[bytes, tuple[float, float]] = {}  # by worker: its last, seen since
        self._searched: set[bytes] = set()  # dead workers whose messages are sent again
        self._dead: set[bytes] = set()
        self._fetched: set[str] | None = None  # what workers have not acked, if that was asked for

    def expect(self) -> None:
        self._expected = True

    def look(self, *, read_only: bool = False) -> None:
        self._sought, self._dead, self._fetched = None, set(), None
        self._began = time.monotonic()
        try:
            pipe = self._client.pipeline(transaction=False)
            pipe.exists(self._canary).get(self._server).info("server")
            pipe.zrange(self._heartbeats, 0, -1, withscores=True)
            canary, known, info, beats = pipe.execute()
            self._note_heartbeats(dict(beats))
            if not read_only:
                self._look_for_losses(canary, known, f"{info.get('run_id', '')}:".encode())
        except (redis.RedisError, OSError) as error:
            self.logger.debug("Redis tells nothing (%s).", type(error).__name__)

    def _look_for_losses(self, canary: int, known: bytes | None, run_id: bytes) -> None:
        lost = not canary or known is None or not known.startswith(run_id)
        if lost:
            known = self._renew(keys=[self._canary, self._server], args=[run_id, uuid.uuid4().hex])
        if self._settled is None and not self._expected:
            self._settled = known
        elif known != self._settled and self._began >= self._not_before:
            self._sought = known
            if (lost or self._settled is not None) and known != self._told:
                self._told = known
                self.logger.warning(
                    "Redis has lost its memory, or was started again; looking for what it has lost."
                )

    def _note_heartbeats(self, beats: dict[bytes, float]) -> None:
        """A worker is dead when its heartbeat stands still, whatever its clock says."""
        now, timeout = time.monotonic(), self._broker.heartbeat_timeout / 1000
        before, self._beats = self._beats, {}
        for worker, beat in beats.items():
            known = before.get(worker)
            self._beats[worker] = known if known and known[0] == beat else (beat, now)
            if now - self._beats[worker][1] >= timeout:
                self._dead.add(worker)
        self._searched &= self._dead
        self._dead -= self._searched

    def ask(self, audits: Sequence[Stale]) -> list[Answer]:
        try:
            return self._ask(audits)
        except (redis.RedisError, OSError) as error:
            self.logger.debug("Redis tells nothing (%s).", type(error).__name__)
            return [Answer.UNKNOWN] * len(audits)

    def _ask(self, audits: Sequence[Stale]) -> list[Answer]:
        asked: dict[str, list[int]] = {}
        for number, stale in enumerate(audits):
            for queue in queues_of(stale, self._broker) if stale.broker_message_id else ():
                asked.setdefault(queue, []).append(number)
        pipe = self._client.pipeline(transaction=False)
        for queue, numbers in asked.items():
            ids: Any = [audits[number].broker_message_id for number in numbers]
            for name in (queue, dq_name(queue)):
                key = f"{self._name}:{name}.msgs"
                self._which_are_there(keys=[key], args=ids, client=pipe)
        found = iter(pipe.execute())
        answers = [Answer.UNKNOWN] * len(audits)
        for numbers in asked.values():
            for number, waits, delayed in zip(numbers, next(found), next(found), strict=True):
                if waits or delayed:
                    answers[number] = self._how(audits[number], delayed)
                elif answers[number] is Answer.UNKNOWN:
                    answers[number] = Answer.GONE
        return answers

    def _how(self, stale: Stale, delayed: int) -> Answer:
        if stale.broker_message_id in self._fetched_ids():
            return Answer.FETCHED
        return Answer.DELAYED if delayed else Answer.WAITS

    def _fetched_ids(self) -> set[str]:
        """The messages that workers have not acked, read once after each look."""
        if self._fetched is None:
            pipe = self._client.pipeline(transaction=False)
            for worker in self._beats:
                for queue in self._queues():
                    pipe.smembers(self._acks(worker, queue))
            self._fetched = {each.decode() for ids in pipe.execute() for each in ids}
        return self._fetched

    def _queues(self) -> list[str]:
        return [*self._broker.queues, *self._broker.delay_queues]

    def _acks(self, worker: bytes, queue: str) -> str:
        return f"{self._name}:__acks__.{worker.decode()}.{queue}"

    def lost(self, store: Store) -> Iterator[list[Stale]]:
        if self._sought is not None:
            yield from self._missing(store)
        for worker in self._dead:
            yield from self._held_by(worker, store)

    def _missing(self, store: Store) -> Iterator[list[Stale]]:
        now, last = store.clock(), None
        young: list[str] = []
        while batch := store.with_broker(BATCH, created_by=now, after=last):
            last = batch[-1]
            gone = self._gone(batch)
            young += [each.message_id for each in gone if each.created_at > now - GRACE]
            yield [each for each in gone if each.created_at <= now - GRACE]
        if young:
            time.sleep(GRACE.total_seconds())
            yield self._gone(store.with_broker_among(young))

    def _gone(self, audits: Sequence[Stale]) -> list[Stale]:
        answers = self._ask(audits)
        return [each for each, answer in zip(audits, answers, strict=True) if answer is Answer.GONE]

    def _held_by(self, worker: bytes, store: Store) -> Iterator[list[Stale]]:
        """What a dead worker has taken from its queues and not begun; Dramatiq is in no hurry to give it back."""
        for queue in self._queues():
            ids = list(self._client.smembers(self._acks(worker, queue)))
            if not ids:
                continue
            bodies = [b for b in self._client.hmget(f"{self._name}:{queue}.msgs", ids) if b]
            held = store.with_broker_among([m for m in map(_message_id, bodies) if m])
            names = {each.decode() for each in ids}
            yield [stale for stale in held if stale.broker_message_id in names]

    def settle(self) -> None:
        self._searched |= self._dead
        if self._sought is not None:
            self._settled, self._sought = self._sought, None
            now = time.monotonic()
            self._not_before = now + (SEARCH_SHARE - 1) * (now - self._began)


def _message_id(body: bytes) -> str | None:
    try:
        message_id: str = dramatiq.Message.decode(body).message_id
        return message_id
    except dramatiq.DecodeError:
        return None
