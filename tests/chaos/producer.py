"""A producer: sends a mix of jobs until it is told to stop, and notes what it was promised.

    python -m tests.chaos.producer [ACTOR ...]

With actors it sends one job to each, and ends.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import dramatiq
import peewee

from . import actors
from .app import broker, database, ledger, name, setting

Message: TypeAlias = "dramatiq.Message[Any]"

PAUSE_AFTER_ERRORS = 0.2  # seconds


class RolledBack(Exception):
    """The producer has changed its mind."""


class Producer:
    def __init__(self) -> None:
        self._random = random.Random(f"{setting.seed}-{name}")
        self._count = 0
        self._stopped = threading.Event()
        self._kinds: dict[Callable[[], None], float] = {
            self._quick: 10,
            self._slow: 2,
            self._coroutine: 1.5,
            self._flaky: 1.5,
            self._again: 1,
            self._exact: 3,
            self._delayed: 1.5,
            self._pipeline: 1,
            self._group: 0.7,
            self._transaction: 1.5,
        }

    def run(self) -> None:
        kinds, weights = list(self._kinds), list(self._kinds.values())
        while not self._stopped.is_set():
            before = self._count
            [kind] = self._random.choices(kinds, weights)
            kind()
            self._stopped.wait(self._random.expovariate(setting.rate) * (self._count - before))

    def stop(self, *_: Any) -> None:
        self._stopped.set()

    def send(self, actor_name: str, delay: float = 0.0) -> None:
        message = self._message(actor_name, delay)
        wait = int(delay * 1000) or None
        self._note([message], lambda: broker.enqueue(message, delay=wait))

    def _quick(self) -> None:
        self.send("quick")

    def _slow(self) -> None:
        self.send("slow")

    def _coroutine(self) -> None:
        self.send("coroutine")

    def _flaky(self) -> None:
        self.send("flaky")

    def _again(self) -> None:
        self.send("again")

    def _exact(self) -> None:
        self.send("exact")

    def _delayed(self) -> None:
        self.send("quick", delay=self._random.choice([0.3, 1.0, 2 * setting.job_timeout]))

    def _pipeline(self) -> None:
        steps = self._messages("quick", "flaky", "quick")
        for step in steps[1:]:
            step.options["pipe_ignore"] = True
        self._note(steps, dramatiq.pipeline(steps, broker=broker).run)

    def _group(self) -> None:
        messages = self._messages("quick", "slow", "quick")
        self._note(messages, dramatiq.group(messages, broker=broker).run, one_by_one=True)

    def _transaction(self) -> None:
        rolled_back = self._random.random() < 0.3
        messages = self._messages(*["quick", "exact", "quick"][: self._random.randint(1, 3)])
        try:
            with database.connection_context(), transaction():
                for message in messages:
                    broker.enqueue(message)
                if rolled_back:
                    raise RolledBack
        except RolledBack:
            self._write("ROLLBACK", messages)
        except Exception:  # noqa: BLE001 - the database may fail in any way
            self._refused(messages, "transaction")
        else:
            self._write("OK", messages)

    def _note(
        self, messages: list[Message], send: Callable[[], Any], *, one_by_one: bool = False
    ) -> None:
        try:
            send()
        except Exception as error:  # noqa: BLE001 - the checker judges it
            sent = 0
            if one_by_one:
                refused = getattr(error, "message_id", None)
                ids = [message.message_id for message in messages]
                sent = ids.index(refused) if refused in ids else 0
            self._write("OK", messages[:sent])
            self._refused(messages[sent:], type(error).__name__)
        else:
            self._write("OK", messages)

    def _refused(self, messages: list[Message], why: str) -> None:
        self._write("ERR", messages, why)
        self._stopped.wait(PAUSE_AFTER_ERRORS)

    def _write(self, word: str, messages: list[Message], *args: object) -> None:
        for message in messages:
            ledger.write(word, message.args[0], *args)

    def _messages(self, *actor_names: str) -> list[Message]:
        return [self._message(actor_name) for actor_name in actor_names]

    def _message(self, actor_name: str, delay: float = 0.0) -> Message:
        self._count += 1
        job = f"{name}-{self._count}"
        ledger.write("CALL", job, actor_name, delay)
        actor: Any = getattr(actors, actor_name)
        message: Message = actor.message(job)
        return message


def transaction() -> Any:
    if isinstance(database, peewee.SqliteDatabase):
        return database.atomic("IMMEDIATE")  # one that reads first could not wait for the lock
    return database.atomic()


if __name__ == "__main__":
    producer = Producer()
    signal.signal(signal.SIGTERM, producer.stop)
    for actor_name in sys.argv[1:]:
        producer.send(actor_name)
    if not sys.argv[1:]:
        producer.run()
