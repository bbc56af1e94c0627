"""Options that are legal, but fight each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

import dramatiq
from dramatiq.encoder import PickleEncoder
from dramatiq.middleware import AgeLimit, ShutdownNotifications, TimeLimit

from ..options import Policy, resolve
from .broker_checks import broker_of
from .findings import Examined, Finding, fine, wrong

AnyActor: TypeAlias = "dramatiq.Actor[Any, Any]"
Rule: TypeAlias = Callable[[Examined, AnyActor, Policy], "Fight | None"]


class Fight(NamedTuple):
    says: str
    advice: str


#: Milliseconds; the lease is four of them, and a pause of the interpreter or of the network may last seconds.
SHORTEST_HEARTBEAT = 1_000


def check_options(examined: Examined) -> Iterator[Finding]:
    found = list(_fights(examined))
    yield from found
    if not found:
        yield fine("options", "those of durable actors go together")


def _fights(examined: Examined) -> Iterator[Finding]:
    for actor in broker_of(examined).actors.values():
        policy = resolve(actor.options, examined.middleware.options)
        if not policy.durable:
            continue
        for rule in RULES:
            fight = rule(examined, actor, policy)
            if fight is not None:
                yield wrong("options", f"actor {actor.actor_name!r}: {fight.says}", fight.advice)
    pickles = isinstance(dramatiq.get_encoder(), PickleEncoder)
    if pickles and examined.middleware.options["signing_key"] is None:
        yield wrong(
            "options",
            "with the PickleEncoder whoever can write the audits can run any code",
            "set a signing_key",
        )


def _runs_longer_than_its_lease(
    examined: Examined, actor: AnyActor, policy: Policy
) -> Fight | None:
    limit = _limit(examined, actor, TimeLimit, "time_limit")
    if policy.heartbeat_interval is not None or limit < policy.job_timeout:
        return None
    return Fight(
        f"it has no heartbeats, and may run for {_duration(limit)}; after job_timeout "
        f"({_duration(policy.job_timeout)}) it is started a second time beside that",
        "set heartbeat_interval, or a time_limit below job_timeout, unless it calls heartbeat() itself",
    )


def _has_a_short_lease(examined: Examined, actor: AnyActor, policy: Policy) -> Fight | None:
    beat = policy.heartbeat_interval
    if beat is None or beat >= SHORTEST_HEARTBEAT:
        return None
    return Fight(
        f"its lease is four heartbeat_interval, {_duration(policy.lease)}, and a worker that is slow for so long loses it",
        f"set heartbeat_interval to {SHORTEST_HEARTBEAT} ms or more",
    )


def _is_too_old_when_it_is_sent_again(
    examined: Examined, actor: AnyActor, policy: Policy
) -> Fight | None:
    age, again = _limit(examined, actor, AgeLimit, "max_age"), _sent_again(policy)
    if age > again:
        return None
    return Fight(
        f"a message that is lost is sent again after job_timeout and backoff ({_duration(again)}), when it is "
        f"older than max_age ({_duration(age)}), so that its job is dead",
        "make max_age longer, or job_timeout shorter",
    )


def _has_expired_when_it_is_sent_again(
    examined: Examined, actor: AnyActor, policy: Policy
) -> Fight | None:
    expiration, again = examined.middleware.options["expiration"], _sent_again(policy)
    if expiration > again:
        return None
    return Fight(
        f"a message that is lost is sent again after job_timeout and backoff ({_duration(again)}), which is past "
        f"expiration ({_duration(expiration)}), so that its job has this one chance and no other",
        "make expiration longer, or job_timeout shorter",
    )


def _is_not_adopted(examined: Examined, actor: AnyActor, policy: Policy) -> Fight | None:
    retention = examined.middleware.options["retention"]
    if retention >= 2 * policy.job_timeout:
        return None
    return Fight(
        f"a job whose audit a failover of the database has lost is run only within half of retention "
        f"({_duration(retention)}), and may wait for job_timeout ({_duration(policy.job_timeout)})",
        "make retention at least twice as long as job_timeout",
    )


def _is_never_told_of_a_shutdown(
    examined: Examined, actor: AnyActor, policy: Policy
) -> Fight | None:
    has_it = any(isinstance(each, ShutdownNotifications) for each in broker_of(examined).middleware)
    if not policy.requeue_on_shutdown or has_it:
        return None
    return Fight(
        "requeue_on_shutdown does nothing without Dramatiq's ShutdownNotifications",
        "add dramatiq.middleware.ShutdownNotifications to the broker",
    )


RULES: tuple[Rule, ...] = (
    _runs_longer_than_its_lease,
    _has_a_short_lease,
    _is_too_old_when_it_is_sent_again,
    _has_expired_when_it_is_sent_again,
    _is_not_adopted,
    _is_never_told_of_a_shutdown,
)


def _sent_again(policy: Policy) -> float:
    """Milliseconds after which a message that was lost is sent again."""
    return policy.job_timeout + policy.wait(1) / timedelta(milliseconds=1)


def _limit(examined: Examined, actor: AnyActor, kind: type[Any], option: str) -> float:
    """The actor's *option*, or that of the middleware of this *kind*, in milliseconds; without it there is no limit."""
    for middleware in broker_of(examined).middleware:
        if isinstance(middleware, kind):
            limit = actor.options.get(option, getattr(middleware, option))
            return math.inf if limit is None else float(limit)
    return math.inf


def _duration(milliseconds: float) -> str:
    return "ever" if milliseconds == math.inf else f"{milliseconds:.0f} ms"
