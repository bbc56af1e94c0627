"""A worker claims a job, waits for a database that does not answer, adopts what has no audit."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from datetime import timedelta

from dramatiq.logging import get_logger
from dramatiq.middleware import Shutdown

from .counters import count_collision
from .errors import DatabaseUnreachable, Duplicate, reason
from .messages import CLAIM_ID, ENQUEUED_AT, EPOCH, SCHEDULED_AT, new_audit
from .models import NAME_LENGTH
from .store import Claim
from .working import Outcome, Run, stems_from

logger = get_logger(__name__)

#: Seconds between two looks at a database that does not answer.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 5.0

#: Seconds after which one who waits looks whether the worker stops.
STEP = 0.05


def claim(run: Run, retention: int, stopping: threading.Event) -> None:
    """Claim the job of *run*, as soon as the database answers, unless the worker is *stopping*.

    Raises:
      Duplicate: It is not this copy's to run, or not now.
      DatabaseUnreachable: The worker stops; Dramatiq may retry the message.
    """
    try:
        _wait_and_claim(run, retention, stopping)
    except Duplicate:
        raise
    except BaseException as error:
        stops = stopping.is_set() or stems_from(error, Shutdown)
        if stops and run.policy.requeue_on_shutdown:
            raise run.skip("the worker stops", Outcome.REQUEUED) from error
        if run.compensates and not run.held:
            # Nothing has run that could be made up for.
            raise run.skip(f"it could not be claimed ({reason(error)})") from error
        raise


def _wait_and_claim(run: Run, retention: int, stopping: threading.Event) -> None:
    pause = SHORTEST_PAUSE
    while True:
        try:
            _claim(run, retention)
            return
        except DatabaseUnreachable as error:
            if pause == SHORTEST_PAUSE:
                logger.warning("Message %s waits: %s", run.claim.message_id, error)
            if _stops_within(pause, stopping):
                raise
            pause = min(2 * pause, LONGEST_PAUSE)


def _stops_within(seconds: float, stopping: threading.Event) -> bool:
    # Not by Event.wait(): an interrupt that strikes in there may leave its lock taken for ever.
    end = time.monotonic() + seconds
    while not stopping.is_set() and time.monotonic() < end:
        time.sleep(STEP)
    return stopping.is_set()


def _claim(run: Run, retention: int) -> None:
    """Take the job, and have its lease renewed from now on."""
    if not _take(run):
        if run.store.find(run.claim.message_id) is not None:
            raise _collision(run, "its audit is finished, or another copy's to claim")
        _adopt(run, retention)
    run.restore = functools.partial(_restore, run, retention)
    if run.policy.heartbeat_interval is not None:
        run.keeper.hold(run.lease(run.policy.heartbeat_interval / 1000))


def _take(run: Run) -> bool:
    run.claiming = True
    claim = Claim(
        run.claim.message_id,
        run.epoch,
        run.claim.claim_id,
        parent=run.message.options.get(CLAIM_ID),
        worker=_worker_name(),
        lease=run.policy.lease * 1_000,
        enqueued_at=run.message.options.get(ENQUEUED_AT),
    )
    claimed = run.claimer.claim(claim)
    run.held = claimed is not None
    run.claiming = False
    return run.held


def _adopt(run: Run, retention: int) -> None:
    """Write the audit that the database has lost, or never had, and claim it.

    An old copy's audit may have been completed and cleaned up, so that is skipped.
    """
    if EPOCH in run.message.options and _is_old(run, retention):
        raise run.skip("it has no audit, and is too old to be given a new one")
    run.store.adopt(new_audit(run.message, run.policy, timedelta(0)), run.epoch)
    logger.warning("Message %s had no audit; it has one now.", run.message.message_id)
    if not _take(run):
        raise _collision(run, "another copy was adopted first")


def _collision(run: Run, why: str) -> Duplicate:
    count_collision(run.broker, run.message.queue_name, run.message.actor_name)
    return run.skip(why)


def _is_old(run: Run, retention: int) -> bool:
    """Whether the audit may have been completed, and cleaned up."""
    meant: int = run.message.options.get(SCHEDULED_AT, run.message.message_timestamp)
    return run.store.sender_clock() - meant >= retention / 2


def _restore(run: Run, retention: int) -> bool:
    """Write the audit of a job that runs here, if a failover of the database has lost it, and hold it again."""
    if _is_old(run, retention) or run.store.find(run.claim.message_id) is not None:
        return False
    try:
        _adopt(run, retention)
    except Duplicate:
        return False
    return True


def _worker_name() -> str:
    return f"{_process_name(os.getpid())}:{threading.current_thread().name}"[:NAME_LENGTH]


@functools.cache
def _process_name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"
