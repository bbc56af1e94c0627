"""What the connections of database drivers tell of themselves."""

from __future__ import annotations

from typing import Any

_PSYCOPG_IN_TRANSACTION = (1, 2, 3)  # ACTIVE, INTRANS, INERROR
_MYSQL_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS


def in_transaction(connection: Any) -> bool:
    """Whether a transaction is open on it, whoever has begun that; False where the driver can't tell."""
    if hasattr(connection, "in_transaction"):  # sqlite3, aiosqlite
        return bool(connection.in_transaction)
    if hasattr(connection, "server_status"):  # PyMySQL
        return bool(connection.server_status & _MYSQL_IN_TRANSACTION)
    if hasattr(connection, "info"):  # psycopg; a broken connection is in no transaction
        return connection.info.transaction_status in _PSYCOPG_IN_TRANSACTION
    return False
