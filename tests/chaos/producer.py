"""``python -m tests.chaos.producer``: sends jobs of all kinds, until a file tells it to stop."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from dramatiq import group, pipeline

from . import app

logger = logging.getLogger(__name__)

GAP = 1 / float(os.environ.get("CHAOS_RATE", "20"))  # seconds between two jobs


class Undo(Exception):
    """Rolls a transaction back."""


class Producer:
    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._random = random.Random(name)
        self._kinds: list[tuple[int, Callable[[], int]]] = [
            (40, lambda: self._sent(app.quick)),
            (6, lambda: self._sent(app.slow)),
            (6, lambda: self._sent(app.failing)),
            (6, lambda: self._sent(app.again)),
            (6, lambda: self._sent(app.coroutine)),
            (6, self._delayed),
            (6, self._pipeline),
            (6, self._group),
            (6, self._committed),
            (6, self._rolled_back),
            (6, lambda: self._sent(app.exact)),
        ]
        if app.PLAIN:
            del self._kinds[3], self._kinds[-3:]

    def run(self) -> None:
        due = time.monotonic()
        weights, kinds = zip(*self._kinds, strict=True)
        while not (app.FOLDER / "stop").exists():
            [kind] = self._random.choices(kinds, weights)
            due = max(due + GAP * kind(), time.monotonic() - 1)
            time.sleep(max(due - time.monotonic(), 0))

    def _job(self) -> str:
        self._number += 1
        return f"{self._name}.{self._number}"

    @contextmanager
    def _call(self, *jobs: str, refused: str = "ERR") -> Any:
        for job in jobs:
            app.ledger.write("CALL", job)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it was, it is in the ledger
            logger.info("not sent: %s", error)
            for job in jobs:
                app.ledger.write(refused, job, type(error).__name__)
        else:
            for job in jobs:
                app.ledger.write("OK", job)

    def _sent(self, actor: Any) -> int:
        job = self._job()
        with self._call(job):
            actor.send(job)
        return 1

    def _delayed(self) -> int:
        job = self._job()
        with self._call(job):
            app.quick.send_with_options(args=(job,), delay=self._random.randrange(200, 2_000))
        return 1

    def _pipeline(self) -> int:
        first, second = self._job(), self._job()
        steps = [actor.message_with_options(args=(job,), pipe_ignore=True)
                 for actor, job in ((app.quick, first), (app.quick, second))]  # fmt: skip
        with self._call(first, second):
            pipeline(steps).run()
        return 2

    def _group(self) -> int:
        jobs = [self._job() for _ in range(3)]
        with self._call(*jobs, refused="PART"):  # those before the one that failed are sent
            group([app.quick.message(job) for job in jobs]).run()
        return 3

    def _committed(self) -> int:
        job = self._job()
        with self._call(job), self._own_connection(), app.db.atomic():
            app.Effect.create(job=f"tx-{job}")
            app.quick.send(job)
        return 1

    def _rolled_back(self) -> int:
        job = self._job()
        app.ledger.write("ROLLED", job)
        try:
            with self._own_connection(), app.db.atomic():
                app.Effect.create(job=f"tx-{job}")
                app.quick.send(job)
                raise Undo
        except Exception as error:  # noqa: BLE001 - a database that is down rolls it back too
            logger.info("rolled back: %s", type(error).__name__)
        return 1

    @contextmanager
    def _own_connection(self) -> Any:
        app.db.connect(reuse_if_open=True)
        try:
            yield
        finally:
            app.db.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Producer(os.environ["CHAOS_NAME"]).run()
