"""The table of audits: whether it is there, and as this version wants it."""

from __future__ import annotations

import peewee

from ..errors import SchemaMismatch
from .base import Base
from .tables import Index, Table


class Schema(Base):
    @property
    def table(self) -> Table:
        """The table as this version wants it."""
        name = self.audit._meta.table_name
        # Finished audits are not in the second, open ones not in the third, and in the last only those with a
        # key, where the database can do that.
        return Table(
            self.audit,
            self.connections,
            (
                Index(f"{name}_message_id", ("message_id",), unique=True),
                # With the id a monitor's batches come in order without a sort, whatever is thought to be due.
                Index(f"{name}_due", ("namespace", "due_at", "id"), only="due_at"),
                Index(
                    f"{name}_finished", ("namespace", "state", "finished_at"), only="finished_at"
                ),
                # Where it has the others, too, what is locked before a key must not be where those are added.
                Index(
                    f"{name}_unique_key",
                    ("unique_key",),
                    unique=True,
                    only="unique_key",
                    nulls_last=True,
                ),
            ),
        )

    def create_tables(self) -> None:
        """Create the table and its indexes where they are missing."""
        self.table.create()

    def ddl(self) -> list[str]:
        """The statements that create the table and its indexes, for migrations of your own."""
        return self.table.ddl()

    def check_table(self) -> None:
        """Raise SchemaMismatch when the table is missing or lacks a column that we write."""
        try:
            self._execute(self.audit.select().where(peewee.SQL("0 = 1")))
        except SchemaMismatch as error:
            # Nobody can do more with the driver's words than with ours, and a worker that ends prints both.
            raise error.with_traceback(None) from None
