"""schema create, schema sql."""

from __future__ import annotations

import click

from ..middleware import DurableMiddleware
from .common import broker_argument, modules_argument, on_broker


@click.group()
def schema() -> None:
    """Create the table of audits, or print how.

    \b
    Examples:
      dramatiq-durable schema create app:broker
      dramatiq-durable schema sql app:broker
    """


@schema.command()
@broker_argument
@modules_argument
@on_broker
def create(middleware: DurableMiddleware) -> None:
    """Create the tables of audits and their indexes where they are missing.

    \b
    Example:
      dramatiq-durable schema create app:broker
    """
    middleware.create_tables()
    for store in middleware.stores():
        store.check_table()
        click.echo(f"{store.audit._meta.table_name} is ready")


@schema.command()
@broker_argument
@modules_argument
@on_broker
def sql(middleware: DurableMiddleware) -> None:
    """Print the DDL, for migrations of your own; no database is needed.

    \b
    Example:
      dramatiq-durable schema sql app:broker > 0042_durable_audits.sql
    """
    for store in middleware.stores():
        for statement in store.ddl():
            click.echo(f"{statement};")
