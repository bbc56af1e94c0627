"""Every statement on the table of audits, and so every transition.

Each transition is one guarded UPDATE in autocommit, and its row count is the
answer.  Nothing is read, changed and saved; only where a monitor marks many audits at once, they
are locked and compared first, in one transaction.  *Open* is pending or running::

    who       transition   from → to                        guard, and what else it sets
    sender    enqueue      (none) → pending                 epoch 0; due at its start + job_timeout + backoff
              push_refused pending → pending                epoch, due_at as inserted; due at its start
              begin_push   pending → pending                the same, after a commit; due after the push lease
              pushed       pending → pending                the same; due as after enqueue (sends in a transaction)
              retry_refused pending → pending               the retry's epoch; due at its start, enqueue_count back
              withdraw     pending → (none)                 epoch 0: another middleware refused the message
    worker    claim        pending → running                epoch = the copy's; epoch+1, new claim_id; due after the lease
                           running → running                the copy is the holder's retry: epoch+1 = the copy's, its claim_id
              adopt        (none) → pending                 a copy without an audit, with the copy's epoch
              heartbeat    running → running                token and claim_id; due after the lease
              complete     open → completed                 token and claim_id; payload blanked
              release      running → pending                token and claim_id; epoch+1, failure_count+1
              requeue      running → pending                token and claim_id; epoch+1, due now, counters reset
              dead         open → dead                      token and claim_id
                           pending → dead                   the copy's epoch
              abort        open → cancelled                 as dead
    monitor   mark         open → pending                   state, epoch, due_at, enqueue_count as read; due after the push lease
              confirm      pending → pending                as marked; due after job_timeout + backoff
              unmark       pending → pending                as marked; broker down: enqueue_count back; due after a pause
              set_aside    pending → pending                as marked; it alone refused: due after the backoff, last_error
              hold         pending → pending                still stale; due after a tenth of its job_timeout
              expire       open → dead                      state, epoch, due_at as read
              cleanup      finished → (none)                finished and scheduled longer ago than the retention
    operator  cancel       open → cancelled                 epoch+1
              retry        dead|cancelled → pending         epoch+1; due now, or when the cancelled run's lease is over

Many at once are ``enqueue_all``, ``begin_pushes``, ``all_pushed`` and ``all_refused`` of a sender,
``claim_all`` of a worker, ``mark_all`` and ``confirm_all`` of a monitor: each row by the same guard.

A message with a ``unique_key`` is enqueued by ``enqueue_unless_open``, which first takes that key away
from a finished audit, where one has it.

The *epoch* is raised by every claim and by every transition that gives a job
up, and each copy carries the epoch it was sent for: one execution an epoch.
"""

from .base import Copy, Held, NewAudit
from .bulk import Bulk
from .claiming import CLAIMS, Claim
from .differences import Difference, differences
from .many import MOST, Many
from .migrating import migrate
from .monitoring import Marked, Stale, instant
from .monitors import Monitors, Presented, Seen
from .operating import Filters, Operating, Tally
from .place import Place
from .schema import Schema
from .tables import Table
from .unique import Unique
from .waiting import Reach, Waiting
from .working import Working

__all__ = [
    "CLAIMS",
    "MOST",
    "Claim",
    "Copy",
    "Difference",
    "Filters",
    "Held",
    "Marked",
    "Monitors",
    "NewAudit",
    "Presented",
    "Reach",
    "Seen",
    "Stale",
    "Store",
    "Table",
    "Tally",
    "differences",
    "instant",
    "migrate",
]


class Store(Bulk, Unique, Working, Waiting, Many, Operating, Schema, Place):
    """The audits of one namespace in one table."""
