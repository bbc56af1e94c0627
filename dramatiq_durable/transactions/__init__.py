"""The transaction of the application's that a send is part of.

It is one that the application has begun on its Peewee Database, or, in a :class:`Block`, on a
connection that it lends for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import peewee

from ..borrowing import borrowed
from ..errors import DurableError, OptionError, reason
from ..lanes import in_memory, plain_of
from ..store import Store
from . import of_django, of_peewee, of_sqlalchemy
from .loans import Lender, Loan

#: Pushes what is committed; its audits are to be had from the Store that it is given.
Push = Callable[[Store], None]

_blocks: ContextVar[tuple[Block, ...]] = ContextVar("durable_blocks", default=())


class Transaction:
    """Of the Peewee *database* that *store* keeps its audits in."""

    def __init__(self, store: Store, database: peewee.Database) -> None:
        self.store = store
        self.database = database

    def after_commit(self, push: Push) -> None:
        """Call *push* after the commit, not after a rollback; of a savepoint's rollback it may not learn."""
        self.database.after_commit(lambda: push(self.store))

    def part(self, *, is_one_statement: bool) -> AbstractContextManager[Any]:
        """After an error in this part the transaction goes on, as if the part had not been.

        One statement needs a savepoint for that on PostgreSQL alone.
        """
        is_postgres = isinstance(plain_of(self.database), peewee.PostgresqlDatabase)
        return nullcontext() if is_one_statement and not is_postgres else self.database.atomic()


class Borrowed(Transaction):
    """That of a connection which the application has lent."""

    def __init__(self, store: Store, loan: Loan) -> None:
        super().__init__(store, borrowed(store.database, loan.connection))
        self._loan = loan

    def after_commit(self, push: Push) -> None:
        # What waits must not keep a Session alive that nobody will ever commit.
        self._loan.after_commit(partial(_committed, push, self.store, self.database))

    def part(self, *, is_one_statement: bool) -> AbstractContextManager[Any]:
        self._loan.begin()
        return super().part(is_one_statement=is_one_statement)


def _committed(push: Push, store: Store, database: peewee.Database, is_open: bool) -> None:
    # What hooks send meanwhile is part of nothing.
    token = _blocks.set(())
    try:
        push(store.through(database) if is_open else store)
    finally:
        _blocks.reset(token)


class Block:
    """What *owner*, a middleware, sends in it is part of the transaction that *lend* tells of at that moment."""

    def __init__(self, owner: object, lend: Lender) -> None:
        self._owner = owner
        self._lend = lend
        self._thread = _this_thread()
        self._reached: dict[Store, bool] = {}
        self.ended = False

    def is_for(self, owner: object) -> bool:
        """Whether *owner* is in it here: a thread, a child and a task that begin in a block all take it along."""
        return owner is self._owner and not self.ended and self._thread == _this_thread()

    def transaction_of(self, store: Store) -> Borrowed | None:
        """None when the connection is not to the database of *store*.

        Raises:
          OptionError: No transaction is open.
        """
        loan = self._lend()
        if not isinstance(plain_of(store.database), loan.kind):
            return None
        transaction = Borrowed(store, loan)
        if store not in self._reached:
            self._reached[store] = _is_reached(store, transaction.database)
        return transaction if self._reached[store] else None


def transaction_of(owner: object, store: Store) -> Transaction | None:
    """The transaction that the audits of what *owner* sends to *store* now are part of.

    Raises:
      OptionError: The audits can't be part of what this thread is in a block of.
    """
    database = store.database
    if in_memory(database):
        return None
    mine = [block for block in _blocks.get() if block.is_for(owner)]
    for block in reversed(mine):
        transaction = block.transaction_of(store)
        if transaction is not None:
            return transaction
    if mine:
        raise OptionError(
            f"the audits in {store.audit._meta.table_name!r} are not in the database of this transaction; "
            "send outside of it, or in a block for that database"
        )
    is_open = database.in_transaction() and not isinstance(
        database.top_transaction(), peewee._manual
    )
    return Transaction(store, database) if is_open else None


def forget_blocks() -> None:
    """An interrupt may keep a block from ending; what follows from its job, and the next one, are not in it."""
    _blocks.set(())


class Transactions:
    """What a middleware offers for them."""

    stores: Callable[[], list[Store]]

    @contextmanager
    def transaction(self, connection: Any) -> Iterator[None]:
        """Make what is sent in this block, by this thread, part of a transaction that is not Peewee's.

        Its audits are written through the application's *connection*, and the messages are pushed
        after its commit, which may come any time later: commit, and the jobs run even if the
        process dies right there; roll back, and they never do.  A send at a time at which no transaction is
        open on *connection* raises OptionError, and so does one whose audit would be
        in another database.

        Parameters:
          connection: SQLAlchemy's Session, scoped_session or Connection; ``django.db.connection``, one of its
            ``connections``, or its alias; or another Peewee Database of the same database.

        Raises:
          OptionError: *connection* is something else, no transaction is open on it, or the
            audits are in another database.
          DatabaseUnreachable: Our own connections, with which that is compared, get no answer.
        """
        block = Block(self, _lender_of(connection))
        stores = [store for store in self.stores() if not in_memory(store.database)]
        if stores and not any(block.transaction_of(store) for store in stores):
            raise OptionError(
                "the audits are not in the database that this transaction is of; give the DurableMiddleware "
                "the same database, host and schema that the application has"
            )
        _blocks.set((*_blocks.get(), block))
        try:
            yield
        finally:
            block.ended = True
            _blocks.set(tuple(each for each in _blocks.get() if not each.ended))


def _this_thread() -> tuple[int, int]:
    # In a child the thread that has forked is called as before.
    return os.getpid(), threading.get_ident()


def _lender_of(given: Any) -> Lender:
    for lender_of in (of_sqlalchemy.lender_of, of_django.lender_of, of_peewee.lender_of):
        lender = lender_of(given)
        if lender is not None:
            return lender
    raise OptionError(
        "transaction() takes a Session or Connection of SQLAlchemy, or a connection of Django or its alias, not "
        f"{type(given).__name__}: a driver's connection does not tell when it has committed"
    )


def _is_reached(store: Store, database: peewee.Database) -> bool:
    try:
        return store.is_reached_by(database)
    except peewee.PeeweeException as error:
        raise DurableError(
            f"the application's connection takes no statement ({reason(error)}); nothing was enqueued"
        ) from error
