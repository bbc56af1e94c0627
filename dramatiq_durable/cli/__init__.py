"""The ``dramatiq-durable`` command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import click

from .acting import cancel, purge, retry
from .doctor import doctor
from .looking import list_audits, show, status
from .running import monitor
from .schema import schema

__all__ = ["main"]


#: What click raises where a command is missing; its version 8.1 has no error for that.
_HELP_IS_SHOWN: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class OneLine(click.Group):
    """Says what is wrong with a command line in one line."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _usage_errors_in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _usage_errors_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _usage_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except _HELP_IS_SHOWN:
        raise
    except click.UsageError as error:
        if error.ctx is None:
            raise
        # Without its context, for with that click shows the usage before it.
        message = " ".join(error.format_message().split())
        raise click.UsageError(
            f"{message.rstrip('.')}; see {error.ctx.command_path} --help"
        ) from None


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dramatiq-durable"), prog_name="dramatiq-durable")
def main() -> None:
    """Look after Dramatiq jobs that survive the loss of the broker.

    BROKER is `module`, `module:broker` or `module:callable`, as for the
    `dramatiq` command, and MODULE are further modules with actors.
    Data goes to stdout, logs to stderr.

    Exit codes: 0 done, 1 failed, 2 usage or import, 3 database or broker unreachable.
    """


for command in (monitor, doctor, status, list_audits, show, retry, cancel, purge, schema):
    main.add_command(command)
