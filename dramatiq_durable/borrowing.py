"""A Peewee Database on a connection that the application lends, in a transaction that it has begun."""

from __future__ import annotations

from typing import Any

import peewee

from .lanes import disconnected


class _Begun:
    """Stands for that transaction where Peewee keeps its own, so that ``atomic()`` makes a savepoint in it."""


def borrowed(database: peewee.Database, connection: Any) -> peewee.Database:
    """A Database like *database* that speaks through *connection*, one of DB-API's, and never closes it."""
    twin = disconnected(database)
    twin.autoconnect = False
    twin._state.set_connection(connection)
    twin.push_transaction(_Begun())
    lent: peewee.Database = twin
    return lent


def is_borrowed(database: Any) -> bool:
    return any(isinstance(each, _Begun) for each in database._state.transactions)
