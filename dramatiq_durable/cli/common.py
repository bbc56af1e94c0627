"""What all commands share: BROKER, durations, and errors as one line and an exit code."""

from __future__ import annotations

import functools
import importlib
import logging
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click
import dramatiq
import peewee
from dramatiq.cli import import_broker, import_object
from dramatiq.errors import BrokerConnectionError
from redis import RedisError

from ..errors import DatabaseUnreachable, DurableError, MetricsNotServed, SchemaMismatch
from ..faults import first_line
from ..middleware import DurableMiddleware, find_middleware
from ..options import LONGEST
from .printing import printable

FAILED, USAGE, UNREACHABLE = 1, 2, 3

#: Characters of a problem: what was imported, or its author, may say megabytes.
LONGEST_LINE = 5_000

_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")

_LOG_FORMAT = "[%(asctime)s] [PID %(process)d] [%(name)s] [%(levelname)s] %(message)s"


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with a unit: ``500ms``, ``90s``, ``15m``, ``2h``, ``3d``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration such as 45, 90s, 15m, 2h or 3d", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds > LONGEST.total_seconds():
            self.fail(f"{value!r} is longer than {LONGEST.days} days", param, ctx)
        return timedelta(seconds=seconds)


class Positive(Duration):
    """A duration above zero."""

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        duration = super().convert(value, param, ctx)
        if duration <= timedelta(0):
            self.fail(f"{value!r} must be more than 0", param, ctx)
        return duration


def confirm(question: str) -> None:
    """Go on only when the user says so."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as error:
        raise Problem("nobody answered, so nothing was changed; --yes does not ask") from error
    if not agreed:
        raise Problem("nothing was changed")


class Problem(click.ClickException):
    """One line on stderr, and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(printable(" ".join(message.split()))[:LONGEST_LINE])
        self.exit_code = exit_code  # type: ignore[misc]


def on_broker(command: Callable[..., Any]) -> Callable[..., Any]:
    """Call *command* with the middleware of the broker that the user names."""

    @click.option(
        "-P", "--path", default=(".",), multiple=True, metavar="DIR", help="Where to import from."
    )
    @click.option("-v", "--verbose", is_flag=True, help="Log more, and show tracebacks.")
    @functools.wraps(command)
    def wrapper(
        broker: str,
        path: tuple[str, ...],
        verbose: bool,
        modules: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        level = logging.DEBUG if verbose else logging.INFO
        logging.basicConfig(level=level, format=_LOG_FORMAT, stream=sys.stderr)
        # It logs a traceback for each attempt to connect; what we log of an outage is enough.
        logging.getLogger("pika").setLevel(logging.NOTSET if verbose else logging.CRITICAL)
        try:
            return command(_middleware(broker, path, modules), **options)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do, also when nobody reads our output any more
        except Exception as error:
            if verbose:
                logging.getLogger(__name__).exception("The command failed.")
            raise _problem(error, broker) from error

    return wrapper


broker_argument = click.argument("broker", metavar="BROKER")
modules_argument = click.argument("modules", metavar="[MODULE]...", nargs=-1)
modules_option = click.option(
    "-m", "--module", "modules", multiple=True, metavar="MODULE", help="Import this module too."
)


def _middleware(broker: str, path: tuple[str, ...], modules: tuple[str, ...]) -> DurableMiddleware:
    sys.path[:0] = path
    found = _imported(
        broker,
        functools.partial(_broker, broker),
        "BROKER is module, module:broker or module:callable, as for the dramatiq command",
    )
    for module in modules:
        _imported(
            module,
            functools.partial(importlib.import_module, module),
            "MODULE is what you would write after `import`",
        )
    try:
        return find_middleware(found)
    except DurableError as error:
        raise Problem(str(error), USAGE) from error


def _broker(name: str) -> dramatiq.Broker:
    if isinstance(import_object(name)[1], dramatiq.Actor):
        # It would be called, as what makes a broker is.
        raise ImportError("it is an actor")  # noqa: TRY004 - as the dramatiq command says it
    found: dramatiq.Broker = import_broker(name)[1]
    return found


def _imported(name: str, load: Callable[[], Any], advice: str) -> Any:
    try:
        return load()
    except Exception as error:
        logging.getLogger(__name__).debug("Import failed.", exc_info=True)
        if isinstance(error, DurableError):
            raise Problem(str(error), USAGE) from error
        message = f"cannot import {name!r}: {type(error).__name__}: {error}; {advice}"
        raise Problem(message, USAGE) from error


def _problem(error: Exception, broker: str) -> Problem:
    if isinstance(error, SchemaMismatch):
        return Problem(str(error).replace("BROKER", broker))
    if isinstance(error, DatabaseUnreachable):
        return Problem(str(error), UNREACHABLE)
    if isinstance(error, (BrokerConnectionError, RedisError, ConnectionError)):
        return Problem(
            f"the broker does not answer ({type(error).__name__}); check that it runs", UNREACHABLE
        )
    if isinstance(error, (peewee.ImproperlyConfigured, DurableError)):
        return Problem(str(error), USAGE if isinstance(error, MetricsNotServed) else FAILED)
    if isinstance(error, peewee.PeeweeException):
        return Problem(f"the database refuses: {first_line(error)}; check the database URL")
    return Problem(f"{type(error).__name__}: {error}; --verbose shows where it comes from")
