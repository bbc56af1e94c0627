"""The jobs: each notes in the ledger that it began, what it did, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage

from dramatiq_durable import LeaseLost, RequeueImmediately, current_audit

from .app import Effect, broker, database, ledger, points, setting

SLOW = 3 * setting.heartbeat  # seconds

broker.add_middleware(CurrentMessage())


def actor(**options: Any) -> Any:
    return dramatiq.actor(
        broker=broker, min_backoff=200, max_backoff=1_000, **_durable(), **options
    )


def _durable() -> dict[str, Any]:
    return {} if setting.plain else {"durable": True}


@contextmanager
def run_of(job: str) -> Iterator[int]:
    """Gives the token of the run; plain Dramatiq's are numbered by its retries."""
    audit = current_audit()
    token = _retries() + 1 if audit is None else audit.token
    ledger.write("START", job, token)
    try:
        yield token
    except LeaseLost:
        ledger.write("LOST", job, token)
        raise
    except BaseException:
        ledger.write("FAIL", job, token)
        raise
    points.reach("end-before")
    ledger.write("END", job, token)
    points.reach("end-after")


def _retries() -> int:
    message = CurrentMessage.get_current_message()
    assert message is not None
    retries: int = message.options.get("retries", 0)
    return retries


def effect(job: str, token: int) -> None:
    points.reach("effect-before")
    ledger.write("EFFECT", job, token)
    points.reach("effect-after")


@actor()
def quick(job: str) -> None:
    with run_of(job) as token:
        effect(job, token)


@actor()
def slow(job: str) -> None:
    with run_of(job) as token:
        end = time.monotonic() + SLOW
        while time.monotonic() < end:
            time.sleep(0.05)
        effect(job, token)


@actor()
async def coroutine(job: str) -> None:
    with run_of(job) as token:
        await asyncio.sleep(0.2)
        effect(job, token)


@actor()
def flaky(job: str) -> None:
    """Fails once; a run of it that is the first in the eyes of its worker."""
    with run_of(job) as token:
        if token == 1:
            raise ConnectionError("the first run of this job fails")
        effect(job, token)


@actor()
def again(job: str) -> None:
    with run_of(job) as token:
        if token == 1 and not setting.plain:
            raise RequeueImmediately
        effect(job, token)


@actor()
def exact(job: str) -> None:
    """Its effect is in the database, and nowhere else."""
    with run_of(job) as token:
        audit = current_audit()
        points.reach("effect-before")
        if audit is None:
            with database.connection_context(), database.atomic():
                Effect.create(job=job, token=token, at=time.monotonic())
        else:
            with audit.transaction():
                Effect.create(job=job, token=token, at=time.monotonic())
        points.reach("effect-after")
