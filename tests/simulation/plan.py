"""What a seed makes happen, but for its faults: the jobs, who sends, runs, recovers and cancels them."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = (
    "plain", "fails", "exhausts", "refuses", "requeues", "slow", "slow", "beats", "commits", "sends", "pipes",
)  # fmt: skip


@dataclass
class Job:
    """A job that its *label* names in the arguments of its message; *follower* is sent by it."""

    label: str
    kind: str
    unkept: bool = False  # its actor has no heartbeats in the background
    delay: int | None = None  # milliseconds
    transaction: str | None = None  # it is sent in one, which ends so
    follower: Job | None = None


@dataclass(frozen=True)
class Action:
    """Of the operator, *after* so many seconds."""

    after: float
    verb: str
    label: str


class Plan:
    def __init__(self, rng: random.Random) -> None:
        self.jobs = [_job(rng, f"job{number}") for number in range(1, rng.choice((1, 2, 2, 3)) + 1)]
        self.faults = rng.choice((0, 1, 2, 3, 4, 6))
        self.spread = rng.choice((8, 15, 30))
        self.eagerness = rng.choice((0.1, 0.3, 0.6))
        self.job_threads = rng.choice((1, 1, 2))
        self.monitors = rng.choice((1, 2, 2))
        self.names_copies = rng.random() < 0.5
        self.durable_first = rng.random() < 0.3
        self.max_crashes = 2 if rng.random() < 0.1 else None
        #: What becomes of the copies that a dead worker had not acked.
        self.redelivery = rng.choice(("at once", "late", "never"))
        self.actions = list(_actions(rng, self.jobs)) if rng.random() < 0.4 else []
        self.together = rng.random() < 0.5  # monitors mark, send and confirm many at once

    def all_jobs(self) -> list[Job]:
        return [*self.jobs, *(job.follower for job in self.jobs if job.follower is not None)]


def _job(rng: random.Random, label: str) -> Job:
    job = Job(label, rng.choice(KINDS), unkept=rng.random() < 0.2)
    if rng.random() < 0.15:
        job.delay = rng.choice((1_000, 30_000, 200_000))
    elif rng.random() < 0.25:
        job.transaction = rng.choice(("commit", "commit", "roll back"))
    if job.kind in {"sends", "pipes"}:
        job.follower = Job(f"{label}'s follower", rng.choice(("plain", "plain", "fails")))
    return job


def _actions(rng: random.Random, jobs: list[Job]) -> list[Action]:
    label = rng.choice(jobs).label
    actions = [Action(rng.choice((0, 0, 1, 12, 20, 70)), "cancel", label)]
    if rng.random() < 0.7:
        actions.append(Action(rng.choice((0, 0, 1, 30, 100)), "retry", label))
    if rng.random() < 0.2:
        actions.append(Action(rng.choice((0, 20)), "cancel", label))
    return actions
