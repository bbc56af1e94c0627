"""One moment of the model: the audit, the broker, and everybody who acts on them."""

from __future__ import annotations

from typing import NamedTuple

#: When an audit is due: after a push lease or a short pause; after a longer wait; now, it is stale;
#: never, it is NULL.
SOON, LATER, NOW, NEVER = "soon", "later", "now", "never"


class Audit(NamedTuple):
    """The row.  It has no times: *due* and *old* say what the clock would."""

    state: str
    epoch: int = 0
    claim_id: int = 0
    due: str = LATER
    enqueue_count: int = 1  # 3 stands for more, too
    enqueued: bool = True  # enqueued_at is set
    postponed: bool = False  # by hold, since it was last marked
    old: bool = False  # past its expiration, or its retention
    effects: int = 0  # what transaction() has written beside it


MISSING = Audit("missing", due=NEVER)


class Copy(NamedTuple):
    """A copy of the message."""

    epoch: int
    claim_id: int = 0  # of the holder that gave the job up to this copy; 0: not sent by Retries
    renewed: bool = False  # it looks younger than the message; mutants only


class Worker(NamedTuple):
    """A thread of a worker process."""

    phase: str
    copy: Copy = Copy(0)
    token: int = 0
    claim_id: int = 0


# What a worker is about to do: nothing; claim; run the body; commit its transaction(); write what
# became of the job; push the copy of Retries; write that it was refused; ack.
IDLE, FETCHED, BODY, TRANSACTION = "idle", "fetched", "body", "transaction"
FAILED, EXHAUSTED, REQUEUED, FINAL, SKIPPED = "failed", "exhausted", "requeued", "final", "skipped"
RETRYING, RETRY_FAILED, SETTLED = "retrying", "retry failed", "settled"

ENDINGS = {
    FAILED: "release",
    EXHAUSTED: "release",
    REQUEUED: "requeue",
    FINAL: "dead",
    SKIPPED: "abort",
}
HOLDING = frozenset((BODY, TRANSACTION, *ENDINGS))

IDLE_WORKER = Worker(IDLE)


class Owed(NamedTuple):
    """What a keeper has still to write for a job of its process."""

    write: str
    token: int
    claim_id: int


class Process(NamedTuple):
    workers: tuple[Worker, ...]
    owed: tuple[Owed, ...] = ()


class Sender(NamedTuple):
    """The one who calls ``send()``, once."""

    phase: str
    unchanged: bool = False  # the audit's due_at is as it was inserted


# What a sender is about to do: send; commit or roll back; elect itself; push; write that the push
# was refused; withdraw the audit; write that the push is done.  UNASKED pushes without an election,
# PUSHED_EARLY has pushed before its commit (mutants only).  The last three are ends.
NEW, IN_TRANSACTION, COMMITTED, INSERTED, ELECTED = (
    "new",
    "open",
    "committed",
    "inserted",
    "elected",
)
UNASKED, PUSHED_EARLY, REFUSED, REFUSED_LATE = "unasked", "early", "refused", "refused late"
WITHDRAWING, PUSHED = "withdrawing", "pushed"
SENT, RAISED, GONE = "sent", "raised", "gone"


class Monitor(NamedTuple):
    """A monitor, and the audit as it has read or marked it."""

    phase: str
    state: str = ""
    epoch: int = 0
    enqueue_count: int = 0
    unchanged: bool = False  # due_at is still the same, for each write gives the audit another


# What a monitor is about to do: read; judge what it has read; hold; push; confirm; unmark; set aside;
# mark what it has pushed (mutants only); delete what it has selected.
RESTING, READ, WAITING, MARKED, CONFIRMING = "resting", "read", "waiting", "marked", "confirming"
UNMARKING, SETTING_ASIDE, LATE_MARK, CLEANING = (
    "unmarking",
    "setting aside",
    "late mark",
    "cleaning",
)

RESTING_MONITOR = Monitor(RESTING)


class Past(NamedTuple):
    """What has happened: nobody acts on it, the promises are judged by it."""

    claims: int = 0  # also mints claim_ids
    claimed: int = 0  # the tokens of all claims, a bit for each
    effects: int = 0  # up to 2
    ended: bool = False  # a finished state was committed, and not retried since
    overrun: bool = False  # a lease has run out while its holder lived
    failed_over: bool = False  # the database has lost commits
    unsent: bool = False  # the send was rolled back, or refused by a middleware
    turn: bool = False  # nobody has taken this due period's one push yet
    sent: bool = False  # a copy was pushed since the job was scheduled
    ancient: bool = False  # the message is too old to be adopted


class Budget(NamedTuple):
    """How often each thing may still happen."""

    worker_dies: int = 0
    monitor_dies: int = 0
    sender_dies: int = 0
    broker_wiped: int = 0
    insert_fails: int = 0
    push_refused: int = 0  # or done, and its answer lost
    unsendable: int = 0  # the broker, or the code, refuses this message alone
    stranded: int = 0  # a copy stays in the broker, and is never delivered
    backlog: int = 0  # due_at passes while a copy waits, or its sender or monitor is slow
    overrun: int = 0  # the holder of a lease is paused, or cannot renew it
    database_fails: int = 0  # at what a worker writes: before it, or after it
    failover: int = 0  # the last commits are lost
    raises: int = 0  # the body, with a retry to come
    exhausted: int = 0  # the body, without one
    throws: int = 0  # the body, for good
    requeues: int = 0
    skips: int = 0  # by another middleware, before the claim or after it
    transactions: int = 0  # bodies that use transaction()
    refused_by_middleware: int = 0  # the message, after its audit was inserted
    rollback: int = 0
    hold: int = 0  # spaces in which the broker can tell what waits in it
    cancel: int = 0
    retry: int = 0
    expires: int = 0
    ages: int = 0


class World(NamedTuple):
    sender: Sender
    audit: Audit
    history: tuple[Audit, ...]  # the commits that a failover may lose
    broker: tuple[Copy, ...]
    stranded: tuple[Copy, ...]
    processes: tuple[Process, ...]
    monitors: tuple[Monitor, ...]
    budget: Budget
    past: Past
