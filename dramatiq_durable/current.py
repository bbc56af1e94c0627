"""What an actor may ask of its own audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

import peewee

from .errors import DurableError, LeaseLost
from .lanes import in_memory
from .working import Run, current_run


def current_audit() -> CurrentAudit | None:
    """The audit of the running job, in an actor, a coroutine included; None anywhere else."""
    run = current_run()
    return CurrentAudit(run) if run is not None and run.in_body else None


class CurrentAudit:
    """The audit of the job that is running here."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def message_id(self) -> str:
        return self._run.claim.message_id

    @property
    def token(self) -> int:
        """The fencing token: larger in every later run of this job.

        Hand it to a system that remembers the largest it has seen and refuses smaller ones.
        """
        return self._run.claim.token

    def heartbeat(self) -> None:
        """Renew the lease now; inside :meth:`transaction` it does nothing.

        Raises:
          LeaseLost: The audit is not this run's any more.
          DatabaseUnreachable: The database does not answer.
        """
        if self._run.completed:
            return
        if self._run.store.heartbeat([self._run.claim]):
            self._lost()

    @contextmanager
    def transaction(self) -> Iterator[peewee.Database]:
        """Effects in the audit's database that happen exactly once.

        Yields the application's Database object in a transaction whose first
        statement completes the audit: both are committed, or neither.  It must
        be the outermost transaction, and the last thing that the actor does: what comes
        after it is not done again when the worker dies.  In a coroutine,
        await nothing inside it, for Peewee's connections belong to threads.

        Raises:
          LeaseLost: The audit is not this run's any more; everything is rolled back.
          DurableError: In a transaction, a second time, or with an in-memory database.
        """
        run, database = self._run, self._run.store.database
        if run.completed:
            raise DurableError("transaction() has completed this job already")
        if in_memory(database):
            raise DurableError("transaction() needs a database that connections can share")
        if database.in_transaction():
            raise DurableError("transaction() must be the outermost transaction")
        try:
            run.keeper.suspend(run.claim, True)
            with _connected(database), database.atomic():
                run.completed = True
                if not run.complete_in(database):
                    self._lost()
                yield database
        except BaseException:
            run.completed = False
            run.keeper.suspend(run.claim, False)
            # An after_commit() callback, or a lost answer, may have failed what is committed.
            run.completed = run.is_completed()
            raise
        run.keeper.drop(run.claim)

    def _lost(self) -> NoReturn:
        self._run.note_lost()
        raise LeaseLost(f"the lease of message {self.message_id} is lost")


def _connected(database: peewee.Database) -> AbstractContextManager[Any]:
    return database.connection_context() if database.is_closed() else nullcontext()
