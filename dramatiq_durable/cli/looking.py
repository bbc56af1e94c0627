"""status, list, show."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import click
import dramatiq

from ..errors import SignatureRefused
from ..middleware import DurableMiddleware
from ..models import STATES, Audit
from ..store import Filters, Seen, Store
from .common import Duration, Problem, broker_argument, modules_argument, modules_option, on_broker
from .monitors import monitor_as_dict, monitors_seen
from .printing import as_dict, json_or_repr, print_json, print_table, printable

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def filter_options(command: Any) -> Any:
    """The options that select audits."""
    for option in reversed(
        (
            click.option(
                "--state",
                "states",
                multiple=True,
                type=click.Choice(STATES),
                help="In this state; may be repeated.",
            ),
            click.option("--actor", "actor_name", metavar="NAME", help="Of this actor."),
            click.option("--queue", "queue_name", metavar="NAME", help="Of this queue."),
            click.option(
                "--older-than",
                type=Duration(),
                metavar="DURATION",
                help="Created longer ago than 45 (seconds), 90s, 15m, 2h, 3d.",
            ),
            click.option("--stale", is_flag=True, help="Open, and past their due_at."),
        )
    ):
        command = option(command)
    return command


def filters_of(
    states: tuple[str, ...],
    actor_name: str | None,
    queue_name: str | None,
    older_than: timedelta | None,
    stale: bool,
) -> Filters:
    return Filters(None, states or None, actor_name, queue_name, older_than, stale)


@click.command()
@broker_argument
@modules_argument
@json_option
@on_broker
def status(middleware: DurableMiddleware, as_json: bool) -> None:
    """Count the audits by state, queue and actor, say how old the oldest stale one is, and which monitors run.

    While the broker is down few are stale, for each failed pass of the monitor puts them off by its pause.

    \b
    Example:
      dramatiq-durable status app:broker
    """
    tallies = [tally for store in middleware.stores() for tally in store.tallies()]
    ages = [store.oldest_stale() for store in middleware.stores()]
    oldest = max((age for age in ages if age is not None), default=None)
    states: Counter[str] = Counter(dict.fromkeys(STATES, 0))
    for tally in tallies:
        states[tally.state] += tally.count
    stale = sum(tally.stale for tally in tallies)
    monitors = monitors_seen(middleware)
    if as_json:
        print_json(
            {
                "namespace": middleware.namespace,
                "states": states,
                "stale": stale,
                "oldest_stale_seconds": None if oldest is None else oldest.total_seconds(),
                "actors": [
                    {
                        "queue_name": tally.queue_name,
                        "actor_name": tally.actor_name,
                        "state": tally.state,
                        "count": tally.count,
                        "stale": tally.stale,
                    }
                    for tally in tallies
                ],
                "monitors": None if monitors is None else list(map(monitor_as_dict, monitors)),
            }
        )
        return
    click.echo(", ".join(f"{states[state]} {state}" for state in STATES))
    if stale:
        click.echo(f"{stale} stale, the oldest for {printable(oldest)}")
    else:
        click.echo("none stale")
    for line in _monitor_lines(monitors):
        click.echo(line)
    if tallies:
        click.echo()
        rows = [(t.queue_name, t.actor_name, t.state, t.count, t.stale or None) for t in tallies]
        print_table(("QUEUE", "ACTOR", "STATE", "COUNT", "STALE"), rows)


def _monitor_lines(monitors: list[Seen] | None) -> list[str]:
    if monitors is None:
        return ["which monitors run is not known; `doctor` says why"]
    lines = []
    for seen in monitors:
        did = "stopped" if seen.stopped else "was seen"
        every = f"{seen.monitor.interval.total_seconds():g} s"
        which = f"monitor {printable(seen)} ({printable(seen.monitor.version)}, every {every})"
        lines.append(f"{which} {did} {printable(seen.ago)} ago")
    return lines or ["no monitor was seen"]


@click.command("list")
@broker_argument
@modules_argument
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=1_000_000),
    default=50,
    show_default=True,
    help="At most so many.",
)
@json_option
@on_broker
def list_audits(middleware: DurableMiddleware, limit: int, as_json: bool, **filters: Any) -> None:
    """List audits, the newest first; their arguments are not shown.

    SENT counts sends and recoveries since the job was sent, requeued or retried.  Times are UTC.

    \b
    Example:
      dramatiq-durable list app:broker --state dead --older-than 1h
    """
    chosen = filters_of(**filters)
    audits: list[Any] = []
    for store in middleware.stores():
        audits += store.list_audits(chosen, limit=limit)
    audits = sorted(audits, key=lambda audit: audit.created_at, reverse=True)[:limit]
    if as_json:
        print_json([as_dict(audit) for audit in audits])
        return
    print_table(
        (
            "MESSAGE",
            "STATE",
            "QUEUE",
            "ACTOR",
            "SENT",
            "STARTED",
            "FAILED",
            "CREATED",
            "DUE",
            "ERROR",
        ),
        [
            (
                audit.message_id,
                audit.state,
                audit.queue_name,
                audit.actor_name,
                audit.enqueue_count,
                audit.start_count,
                audit.failure_count,
                audit.created_at,
                audit.due_at,
                (audit.last_error or "")[:60],
            )
            for audit in audits
        ],
    )


@click.command()
@broker_argument
@click.argument("message_id", metavar="ID")
@modules_option
@click.option(
    "--arguments", is_flag=True, help="Show the arguments and options of the message, too."
)
@json_option
@on_broker
def show(middleware: DurableMiddleware, message_id: str, arguments: bool, as_json: bool) -> None:
    """Show everything that is known of one message, but not its arguments unless asked.

    \b
    Example:
      dramatiq-durable show app:broker 4e1c2c1e-6f0b-4d53-9d8e-0b8cf3b8ef0c --arguments
    """
    found = ((store, store.get(message_id)) for store in middleware.stores())
    store, audit = next(((s, a) for s, a in found if a is not None), (None, None))
    if store is None or audit is None:
        raise Problem(f"there is no audit of message {message_id}; `list` shows those there are")
    columns = as_dict(audit)
    if arguments:
        columns.update(_message(store, audit))
    if as_json:
        print_json(columns)
    else:
        width = max(map(len, columns))
        for name, value in columns.items():
            click.echo(f"{name.ljust(width)}  {printable(value)}".rstrip())


def _message(store: Store, audit: Audit) -> dict[str, Any]:
    payload = bytes(audit.payload)
    if not payload:
        return {"payload": "blanked at completion"}
    try:
        store.verify(audit)
    except SignatureRefused as error:
        return {"payload": repr(payload), "not_decoded": str(error)}
    try:
        message = dramatiq.Message.decode(payload)
    except dramatiq.DecodeError:
        return {"payload": repr(payload)}
    return {
        "args": [json_or_repr(each) for each in message.args],
        "kwargs": {name: json_or_repr(value) for name, value in message.kwargs.items()},
        "options": {name: json_or_repr(value) for name, value in message.options.items()},
    }
