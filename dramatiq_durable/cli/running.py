"""monitor."""

from __future__ import annotations

import math
import signal
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from dramatiq.logging import get_logger

from ..exposition import LOOPBACK
from ..middleware import DurableMiddleware
from ..monitor import Monitor
from ..pace import MAX_RATE
from .common import FAILED, UNREACHABLE, Positive, broker_argument, modules_argument, on_broker
from .looking import json_option
from .printing import print_json

logger = get_logger(__name__)


class Rate(click.FloatRange):
    """A number above zero."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def _in_a_folder(ctx: Any, param: Any, path: Path | None) -> Path | None:
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{str(path.parent)!r} is no folder", ctx, param)
    return path


@click.command()
@broker_argument
@modules_argument
@click.option(
    "--interval",
    type=Positive(),
    default="1",
    metavar="DURATION",
    show_default=True,
    envvar="DRAMATIQ_DURABLE_INTERVAL",
    show_envvar=True,
    help="Pause between passes: seconds, or 500ms, 15m.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1, max=10_000),
    default=500,
    show_default=True,
    envvar="DRAMATIQ_DURABLE_BATCH_SIZE",
    show_envvar=True,
    help="How many audits are read at a time.",
)
@click.option(
    "--max-rate",
    type=Rate(),
    default=MAX_RATE,
    metavar="NUMBER",
    show_default=True,
    envvar="DRAMATIQ_DURABLE_MAX_RATE",
    show_envvar=True,
    help="How many messages per second this monitor sends at most.",
)
@click.option(
    "--expiration",
    type=Positive(),
    metavar="DURATION",
    envvar="DRAMATIQ_DURABLE_EXPIRATION",
    show_envvar=True,
    help="Give open audits up so long after their start.  Default: the middleware's expiration.",
)
@click.option(
    "--once",
    is_flag=True,
    envvar="DRAMATIQ_DURABLE_ONCE",
    show_envvar=True,
    help="Make one pass, print what it did, exit.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    envvar="DRAMATIQ_DURABLE_DRY_RUN",
    show_envvar=True,
    help="Make one pass that changes and sends nothing, print what it would do, exit.",
)
@click.option(
    "--health-file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_in_a_folder,
    metavar="PATH",
    envvar="DRAMATIQ_DURABLE_HEALTH_FILE",
    show_envvar=True,
    help="Touch this file after each pass that met no error of a database.",
)
@click.option(
    "--prometheus-port",
    type=click.IntRange(min=1, max=65_535),
    metavar="NUMBER",
    envvar="DRAMATIQ_DURABLE_PROMETHEUS_PORT",
    show_envvar=True,
    help="Serve metrics for Prometheus on this port, for as long as passes are made.",
)
@click.option(
    "--prometheus-host",
    default=LOOPBACK,
    metavar="ADDRESS",
    show_default=True,
    envvar="DRAMATIQ_DURABLE_PROMETHEUS_HOST",
    show_envvar=True,
    help="Serve them on this address; 0.0.0.0 is all, and everybody who reaches it may read them.",
)
@json_option
@on_broker
def monitor(
    middleware: DurableMiddleware,
    interval: timedelta,
    batch_size: int,
    max_rate: float,
    expiration: timedelta | None,
    once: bool,
    dry_run: bool,
    health_file: Path | None,
    prometheus_port: int | None,
    prometheus_host: str,
    as_json: bool,
) -> None:
    """Enqueue stale jobs again; give up expired audits, delete old finished ones.

    Several monitors may run at once; each audit is recovered by one of them.
    TERM and INT finish the pass, a long one to the end of its batch, and exit 0.

    \b
    Example:
      dramatiq-durable monitor app:broker --interval 5
    """
    assert middleware.broker is not None
    if as_json and not (once or dry_run):
        raise click.UsageError("--json is for what one pass prints: --once or --dry-run")
    watcher = Monitor(
        middleware.broker,
        interval=interval.total_seconds(),
        batch_size=batch_size,
        max_rate=max_rate,
        expiration=expiration,
        dry_run=dry_run,
        health_file=health_file,
        prometheus_port=prometheus_port,
        prometheus_host=prometheus_host,
    )
    if once or dry_run:
        for store in middleware.stores():
            store.check_table()
        done = watcher.run_once()
        if not dry_run:
            watcher.liveness.passed(done)
            watcher.liveness.stopped()
        if as_json:
            print_json(asdict(done))
        else:
            click.echo(f"would have {done}" if dry_run else str(done))
        sys.exit(UNREACHABLE if done.outage else FAILED if done.failed else 0)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: watcher.stop())
    logger.info(
        "Monitoring the audits of namespace %r every %g s.", middleware.namespace, watcher.interval
    )
    watcher.run()
