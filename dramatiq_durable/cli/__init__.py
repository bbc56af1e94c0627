"""The ``dramatiq-durable`` command."""

from __future__ import annotations

from importlib.metadata import version

import click

from .acting import cancel, purge, retry
from .looking import list_audits, show, status
from .running import monitor
from .schema import schema

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dramatiq-durable"), prog_name="dramatiq-durable")
def main() -> None:
    """Look after Dramatiq jobs that survive the loss of the broker.

    BROKER is `module`, `module:broker` or `module:callable`, as for the
    `dramatiq` command, and MODULE are further modules with actors.
    Data goes to stdout, logs to stderr.

    Exit codes: 0 done, 1 failed, 2 usage or import, 3 database or broker unreachable.
    """


for command in (monitor, status, list_audits, show, retry, cancel, purge, schema):
    main.add_command(command)
