"""Transactions that an actor leaves open in its thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee
from dramatiq.logging import get_logger

logger = get_logger(__name__)

_MYSQL_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS


@contextmanager
def leftovers_rolled_back(database: Any, message_id: str) -> Iterator[None]:
    """Roll back what the body begins on *database* in this thread, and does not end.

    The next job of this thread would write into that transaction without knowing it.
    """
    before = _in_transaction(database)
    try:
        yield
    finally:
        if not before and _in_transaction(database):
            logger.warning("Message %s left a transaction open; it is rolled back.", message_id)
            while database.in_transaction():
                database.pop_transaction()
            database.rollback()


def _in_transaction(database: Any) -> bool:
    while isinstance(database, peewee.Proxy):
        database = database.obj
    if database.is_closed():
        return False
    return database.in_transaction() or _driver_in_transaction(database.connection())


def _driver_in_transaction(connection: Any) -> bool:
    """Begun by a statement of the actor's own, behind Peewee's back."""
    if hasattr(connection, "in_transaction"):  # sqlite3
        return bool(connection.in_transaction)
    if hasattr(connection, "server_status"):  # PyMySQL
        return bool(connection.server_status & _MYSQL_IN_TRANSACTION)
    if hasattr(connection, "info"):  # psycopg
        return bool(connection.info.transaction_status != 0)
    return False
