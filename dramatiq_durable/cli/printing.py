"""Audits and numbers, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from ..models import Audit


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=True, default=str))


def json_or_repr(value: Any) -> Any:
    """*value* where JSON has a word for it, else as Python writes it: other encoders know other types."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value


def counted(number: int, what: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[printable(cell) for cell in row] for row in rows]
    table = [list(headings), *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]
    for row in table:
        line = "  ".join(
            cell.rjust(width) if cell.isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        click.echo(line.rstrip())


def printable(value: Any) -> str:
    """A cell: nothing for None, whole seconds, and no character that a terminal would obey."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, timedelta):
        return str(timedelta(seconds=round(value.total_seconds())))
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def iso(moment: datetime) -> str:
    """A moment in UTC, for programs."""
    return moment.isoformat(timespec="microseconds") + "Z"


def as_dict(audit: Audit) -> dict[str, Any]:
    """Everything but the payload; times as ISO 8601 in UTC, durations in seconds."""
    columns: dict[str, Any] = {}
    for field in type(audit)._meta.sorted_fields:
        value = getattr(audit, field.name)
        if field.name == "payload":
            continue
        if isinstance(value, datetime):
            value = iso(value)
        elif field.name in ("job_timeout", "lease", "backoff"):
            value /= 1_000_000
        columns[field.name] = value
    return columns
