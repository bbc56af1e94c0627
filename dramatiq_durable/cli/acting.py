"""retry, cancel, purge."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from ..middleware import DurableMiddleware
from ..models import CANCELLED, DEAD, OPEN
from ..options import retentions
from ..store import Filters, Store
from ..store.operating import IDS_PER_STATEMENT
from .common import (
    Problem,
    broker_argument,
    confirm,
    modules_argument,
    modules_option,
    on_broker,
)
from .looking import filter_options, filters_of, json_option
from .printing import counted, print_json, printable

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
ids_argument = click.argument("message_ids", metavar="[ID]...", nargs=-1)

PURGE_BATCH = 1_000
MOST_NAMED = 10


@click.command()
@broker_argument
@ids_argument
@modules_option
@filter_options
@yes_option
@json_option
@on_broker
def retry(middleware: DurableMiddleware, **options: Any) -> None:
    """Bring dead and cancelled jobs back: by their IDs, or all that match the filters.

    A job that was cancelled while it ran is due when the lease of that run is over.

    \b
    Examples:
      dramatiq-durable retry app:broker 4e1c2c1e-6f0b-4d53-9d8e-0b8cf3b8ef0c
      dramatiq-durable retry app:broker --state dead --actor charge
    """
    _act(middleware, "retry", "retried", (DEAD, CANCELLED), Store.retry, **options)


@click.command()
@broker_argument
@ids_argument
@modules_option
@filter_options
@yes_option
@json_option
@on_broker
def cancel(middleware: DurableMiddleware, **options: Any) -> None:
    """Cancel open jobs: by their IDs, or all that match the filters.

    One that waits never starts; one that runs is interrupted with LeaseLost at its next heartbeat.

    \b
    Examples:
      dramatiq-durable cancel app:broker 4e1c2c1e-6f0b-4d53-9d8e-0b8cf3b8ef0c
      dramatiq-durable cancel app:broker --queue mails --older-than 2h
    """
    _act(middleware, "cancel", "cancelled", OPEN, Store.cancel, **options)


@click.command()
@broker_argument
@modules_argument
@yes_option
@json_option
@on_broker
def purge(middleware: DurableMiddleware, yes: bool, as_json: bool) -> None:
    """Delete the finished audits that are older than their retention, now.

    It counts from the end of the job or from the start it was scheduled for, whichever is later.
    Open audits are never deleted.

    \b
    Example:
      dramatiq-durable purge app:broker --yes
    """
    ages = retentions(middleware.options)
    counts = [(store, store.count_expired(**ages)) for store in middleware.stores()]
    total = sum(count for _, count in counts)
    if total and not yes:
        confirm(f"Delete {counted(total, 'finished audit')}?")
    deleted = sum(_in_steps(_cleanup(store, ages), count, "purge") for store, count in counts)
    _say("deleted", deleted, as_json)


def _cleanup(store: Store, ages: dict[str, Any]) -> Iterator[int]:
    while deleted := store.cleanup(PURGE_BATCH, **ages):
        yield deleted


def _act(
    middleware: DurableMiddleware,
    verb: str,
    past: str,
    actionable: tuple[str, ...],
    act: Callable[[Store, Sequence[str]], Iterator[int]],
    *,
    message_ids: tuple[str, ...],
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    given = any(filters.values())
    if bool(message_ids) == given:
        raise click.UsageError(f"name the IDs to {verb}, or filters, but not both")
    if message_ids:
        chosen = Filters(message_ids=message_ids, states=actionable)
    else:
        fitting = tuple(s for s in filters["states"] or actionable if s in actionable)
        if not fitting:
            raise click.UsageError(f"{verb} is for audits that are {' or '.join(actionable)}")
        chosen = filters_of(**{**filters, "states": fitting})
    ids = [(store, store.ids(chosen)) for store in middleware.stores()]
    total = sum(len(each) for _, each in ids)
    if total and not message_ids and not yes:
        confirm(f"{verb.capitalize()} {counted(total, 'job')}?")
    done = sum(_in_steps(act(store, each), len(each), verb) for store, each in ids)
    _say(past, done, as_json)
    missing = len(set(message_ids)) - done
    if missing > 0:
        known = {each for _, part in ids for each in part}
        others = [each for each in dict.fromkeys(message_ids) if each not in known]
        raise Problem(
            f"{missing} of the IDs could not be {past}: {_named(middleware, others, missing)}; "
            f"only jobs that are {' or '.join(actionable)} can be"
        )


def _say(done: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({done: count})
    else:
        click.echo(f"{done} {count}")


def _named(middleware: DurableMiddleware, message_ids: Sequence[str], total: int) -> str:
    """The first of *message_ids* with their states, and how many of *total* are not named."""
    first = message_ids[:MOST_NAMED]
    found = [a for s in middleware.stores() for a in s.list_audits(Filters(message_ids=first))]
    states = {audit.message_id: audit.state for audit in found}
    named = [f"{printable(each)} is {states.get(each, 'unknown')}" for each in first]
    if total > len(first):
        # Somebody else may have been quicker with one that was neither.
        named.append(f"and {total - len(first)} more")
    return ", ".join(named)


def _in_steps(batches: Iterator[int], total: int, label: str) -> int:
    """Sum the batches, with a progress bar where somebody sees it."""
    stderr = sys.stderr
    if not stderr.isatty() or total <= IDS_PER_STATEMENT:
        return sum(batches)
    done = 0
    with click.progressbar(length=total, label=label, file=stderr) as bar:
        for count in batches:
            done += count
            bar.update(count)
    return done
