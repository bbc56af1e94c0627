"""The transactions of a Peewee Database that is not the middleware's own, but of the same database."""

from __future__ import annotations

from typing import Any

import peewee

from ..errors import OptionError
from ..lanes import plain_of
from .loans import KINDS, Committed, Lender, Loan


def lender_of(given: Any) -> Lender | None:
    """*given* is a Peewee Database, or a proxy of one; None when it is not."""
    if isinstance(given, (peewee.Database, peewee.Proxy)):
        return lambda: _lent_by(plain_of(given))
    return None


def _lent_by(database: Any) -> Loan:
    if not database.in_transaction() or isinstance(database.top_transaction(), peewee._manual):
        raise OptionError(
            "no transaction is open on the Peewee Database; send within `with database.atomic():`"
        )

    def after_commit(committed: Committed) -> None:
        database.after_commit(lambda: committed(False))

    kind = next((kind for kind in KINDS.values() if isinstance(database, kind)), type(database))
    return Loan(kind, database.connection(), after_commit)
