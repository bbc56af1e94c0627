"""Transactions that an actor leaves open in its thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee
from dramatiq.logging import get_logger

from .drivers import in_transaction

logger = get_logger(__name__)


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
            _roll_back(database)


def _roll_back(database: Any) -> None:
    # What the body has done, or raised, is what counts.
    try:
        while database.in_transaction():
            database.pop_transaction()
        database.rollback()
        database._state.commit_callbacks.clear()
    except Exception as error:
        logger.warning("It could not be rolled back (%s).", type(error).__name__)
        _close(database)


def _close(database: Any) -> None:
    try:
        # A pool must not lend this connection again.
        getattr(database, "manual_close", database.close)()
    except Exception as error:
        logger.debug("could not close a broken connection: %s", type(error).__name__)


def _in_transaction(database: Any) -> bool:
    while isinstance(database, peewee.Proxy):
        database = database.obj
    if database.is_closed():
        return False
    try:
        return database.in_transaction() or in_transaction(database.connection())
    except Exception:
        return False  # a connection that was closed behind Peewee's back
