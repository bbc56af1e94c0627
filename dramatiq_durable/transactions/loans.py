"""What the application lends: its connection, for what belongs into the transaction that it has begun there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import peewee

#: Called after the commit, and not after a rollback; True: the transaction is open still, for a test pretends that commit.
Committed: TypeAlias = "Callable[[bool], None]"


@dataclass(frozen=True)
class Loan:
    """A connection that is good for this moment; the next transaction may have another."""

    kind: type[peewee.Database]  # of database
    connection: Any  # DB-API's, which takes %s, on SQLite ?, for parameters
    after_commit: Callable[[Committed], Any]
    begin: Callable[[], None] = lambda: None  # called before it is written to


#: Raises OptionError where no transaction is open.
Lender: TypeAlias = "Callable[[], Loan]"


def is_made_by(module: str, given: Any, *names: str) -> bool:
    """Whether *given* is of one of the classes of that *module*, which whoever has made it has imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(
        given, tuple(getattr(loaded, each, ()) for each in names)
    )


#: By the names that SQLAlchemy and Django have for them.
KINDS: dict[str, type[peewee.Database]] = {
    "postgresql": peewee.PostgresqlDatabase,
    "mysql": peewee.MySQLDatabase,
    "mariadb": peewee.MySQLDatabase,
    "sqlite": peewee.SqliteDatabase,
}
