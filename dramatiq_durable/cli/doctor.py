"""doctor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import click

from ..errors import DatabaseUnreachable
from ..middleware import DurableMiddleware
from .broker_checks import check_broker, check_confirms, check_retries
from .common import FAILED, UNREACHABLE, Positive, broker_argument, modules_argument, on_broker
from .database_checks import (
    check_clock,
    check_monitors,
    check_schema,
    check_stale,
    monitors_within_reach,
    reach,
)
from .findings import Examined, Finding, State, unreachable
from .looking import json_option
from .option_checks import check_options
from .printing import print_json, printable

Check = Callable[[Examined], Iterator[Finding]]

#: By the names that --skip takes, in the order in which they are made.
CHECKS: dict[str, Check] = {
    "schema": check_schema,
    "clock": check_clock,
    "monitor": check_monitors,
    "stale": check_stale,
    "broker": check_broker,
    "confirms": check_confirms,
    "retries": check_retries,
    "options": check_options,
}


@click.command()
@broker_argument
@modules_argument
@click.option(
    "--unseen",
    type=Positive(),
    default="60",
    metavar="DURATION",
    show_default=True,
    help="A monitor that was not seen for so long, beyond its interval, does not count.",
)
@click.option(
    "--stale",
    type=Positive(),
    default="5m",
    metavar="DURATION",
    show_default=True,
    help="An audit that is stale for so long, beyond a monitor's interval, is not looked after.",
)
@click.option(
    "--skip",
    multiple=True,
    type=click.Choice(sorted(CHECKS)),
    help="Leave this check out; may be repeated.",
)
@json_option
@on_broker
def doctor(
    middleware: DurableMiddleware,
    unseen: timedelta,
    stale: timedelta,
    skip: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what is wrong and what to do about it, and exit with 1 if anything is, with 3 if it is out of reach.

    \b
    It looks whether
      schema    the tables are as this version wants them
      clock     this machine's clock agrees with the database's
      monitor   a monitor runs
      stale     what is stale is looked after
      broker    the broker answers, and takes messages
      confirms  RabbitMQ says when it drops a message
      retries   the broker has Dramatiq's Retries
      options   options of durable actors do not fight each other

    It changes nothing.

    \b
    Examples:
      dramatiq-durable doctor app:broker
      dramatiq-durable doctor app:broker --skip retries --json
    """
    clocks, findings = reach(middleware)
    monitors = monitors_within_reach(middleware, clocks)
    examined = Examined(middleware, clocks, monitors, unseen, stale)
    for name, check in CHECKS.items():
        if name not in skip:
            findings += _made(name, check, examined)
    if as_json:
        print_json([_as_dict(each) for each in findings])
    else:
        for each in findings:
            click.echo(f"{each.state.value.ljust(11)}  {printable(_line(each))}")
    states = {each.state for each in findings}
    if State.UNREACHABLE in states:
        sys.exit(UNREACHABLE)
    sys.exit(FAILED if State.WRONG in states else 0)


def _made(name: str, check: Check, examined: Examined) -> Iterator[Finding]:
    try:
        yield from check(examined)
    except DatabaseUnreachable as error:
        # It answered a moment ago; what it says now may be of this one table.
        yield unreachable(name, str(error))


def _line(finding: Finding) -> str:
    advice = f"; {_for_this(finding.advice)}" if finding.advice else ""
    return f"{finding.check}: {_for_this(finding.says)}{advice}"


def _as_dict(finding: Finding) -> dict[str, str | None]:
    return {
        "check": finding.check,
        "state": finding.state.value,
        "says": _for_this(finding.says),
        "advice": _for_this(finding.advice) or None,
    }


def _for_this(text: str) -> str:
    """With the name of the broker in the commands that are to be run."""
    broker: str = click.get_current_context().params["broker"]
    return text.replace(" BROKER", f" {broker}")
