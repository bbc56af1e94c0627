"""PostgreSQL, reached directly or through a pooler such as PgBouncer.

A pooler may lend each transaction another of its connections to the server.  What
is SET for a session would then be missing on some of them, and stay on those
that others get; so would prepared statements.  Behind one, what a statement needs
goes to the server with it, and ends with its transaction.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import peewee

# The one who made the key for cancelling is a pooler if it names another process than the one that serves us.
_FOR_THE_SESSION = """
    SELECT CASE WHEN pg_backend_pid() = %s THEN set_config(%s, %s, false) END
"""

#: Milliseconds.
_LONGEST_LIMIT = 2**31 - 1

_FOR_THE_TRANSACTION = "SELECT set_config('lock_timeout', '{}', true); "


def limit_lock_waits(lane: peewee.PostgresqlDatabase, timeout: str) -> None:
    """Let no statement on *lane*, which is new, wait longer than *timeout* for somebody else's lock."""
    if not _set(lane, "lock_timeout", timeout):
        connection = lane.connection()
        is_psycopg3 = hasattr(connection, "prepare_threshold")
        connection.cursor_factory = (_psycopg if is_psycopg3 else _psycopg2)(timeout)


def limit_waits_of(lane: Any, seconds: float) -> None:
    """Change what :func:`lift_limits` has lifted: how long statements on *lane* wait for locks."""
    _set(lane, "lock_timeout", str(min(int(seconds * 1000), _LONGEST_LIMIT)))


def lift_limits(lane: peewee.PostgresqlDatabase) -> None:
    """Let a statement on *lane*, which is new, take as long as it takes; behind a pooler the server's limits stay."""
    for limit in ("statement_timeout", "lock_timeout"):
        _set(lane, limit, "0")


def _set(lane: peewee.PostgresqlDatabase, name: str, value: str) -> bool:
    """Set it for the session; False where that would be another client's the next moment."""
    told = lane.execute_sql(
        _FOR_THE_SESSION, (lane.connection().info.backend_pid, name, value)
    ).fetchone()
    return bool(told != (None,))


# Cursors each of whose statements brings its lock timeout along.  They put values into its text
# themselves, for the server takes several statements at once, and prepares none of them, only so.


@cache
def _psycopg(timeout: str) -> Any:
    import psycopg

    class Cursor(psycopg.ClientCursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            super().execute(_FOR_THE_TRANSACTION.format(timeout) + query, *args, **options)
            self.nextset()
            return self

    return Cursor


@cache
def _psycopg2(timeout: str) -> Any:
    import psycopg2.extensions

    class Cursor(psycopg2.extensions.cursor):  # type: ignore[misc]
        def execute(self, query: str, *args: Any) -> None:
            super().execute(_FOR_THE_TRANSACTION.format(timeout) + query, *args)

    return Cursor
