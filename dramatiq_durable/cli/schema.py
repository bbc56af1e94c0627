"""schema create, check, migrate, sql."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from ..middleware import DurableMiddleware
from ..store import Difference, Table, differences, migrate
from .common import Positive, Problem, broker_argument, modules_argument, on_broker
from .looking import json_option
from .printing import counted, print_json


@click.group()
def schema() -> None:
    """Create the table of audits, compare it with what this version wants, change it, or print how.

    \b
    Examples:
      dramatiq-durable schema create app:broker
      dramatiq-durable schema migrate app:broker
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
    for name in _named(middleware.tables()):
        click.echo(f"{name} is ready")


@schema.command()
@broker_argument
@modules_argument
@json_option
@on_broker
def check(middleware: DurableMiddleware, as_json: bool) -> None:
    """Say in what the tables differ from what this version wants; exit 1 if they do.

    Columns and indexes are compared, and columns by their names only.  What else is there is yours.

    \b
    Example:
      dramatiq-durable schema check app:broker
    """
    tables = middleware.tables()
    found = [(name, differences(table)) for name, table in zip(_named(tables), tables, strict=True)]
    everything = [each for _, some in found for each in some]
    if as_json:
        print_json(list(map(_as_dict, everything)))
    else:
        for name, some in found:
            for each in some:
                click.echo(f"{name}: {each.says}")
            if not some:
                click.echo(f"{name} is as this version wants it")
    _refuse(everything)


@schema.command("migrate")
@broker_argument
@modules_argument
@click.option("--dry-run", is_flag=True, help="Print the SQL, and execute none of it.")
@click.option(
    "--wait",
    type=Positive(),
    default="5m",
    metavar="DURATION",
    show_default=True,
    help="How long to wait for another migration, and for transactions that use the table.",
)
@on_broker
def migrate_(middleware: DurableMiddleware, dry_run: bool, wait: timedelta) -> None:
    """Bring the tables up to this version, and print the SQL of it.

    Tables, columns and indexes are added, and indexes of ours that have changed are replaced; all
    else stays.  It may run beside workers and monitors, again, and several times at once.

    \b
    Examples:
      dramatiq-durable schema migrate app:broker --dry-run
      dramatiq-durable schema migrate app:broker
    """
    left: list[Difference] = []
    tables = middleware.tables()
    for name, table in zip(_named(tables), tables, strict=True):
        if dry_run:
            for each in differences(table):
                for statement in each.statements:
                    _print_sql(statement.sql)
                left += [] if each.statements else [each]
            continue
        unmended = migrate(table, wait, _print_sql)
        if not unmended:
            click.echo(f"{name} is ready")
        left += unmended
    _refuse(left)


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
    for table in middleware.tables():
        for statement in table.ddl():
            _print_sql(statement)


def _named(tables: Sequence[Table]) -> list[str]:
    """The names of *tables*; those in different databases may have the same, and so that of the model, too."""
    names = [table.name for table in tables]
    return [
        name if names.count(name) == 1 else f"{name} of {table.model.__name__}"
        for name, table in zip(names, tables, strict=True)
    ]


def _print_sql(statement: str) -> None:
    click.echo(f"{statement};")


def _as_dict(difference: Difference) -> dict[str, Any]:
    return {
        "table": difference.table,
        "difference": difference.says,
        "sql": [statement.sql for statement in difference.statements],
    }


def _refuse(found: Sequence[Difference]) -> None:
    """Say what to do about them, if there are any."""
    if not found:
        return
    others = [f"{each.table}: {each.says}" for each in found if not each.statements]
    advice = []
    if len(found) > len(others):
        broker = click.get_current_context().params["broker"]
        mended = counted(len(found) - len(others), "difference")
        advice.append(f"{mended}; run `dramatiq-durable schema migrate {broker}`")
    if others:
        advice.append(f"to be mended by a migration of your own: {', '.join(others)}")
    raise Problem("; ".join(advice))
