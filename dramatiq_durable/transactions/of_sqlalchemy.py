"""The transactions of SQLAlchemy's sessions and connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from ..drivers import in_transaction
from ..errors import OptionError
from .loans import KINDS, Committed, Lender, Loan, is_made_by
from .numbering import Numbering

_WAITING = "dramatiq_durable"  # in the info of a connection


class _Waiting:
    """What waits for the end of the transaction of a Connection."""

    def __init__(self, session: Any) -> None:
        self.is_of_session = session is not None
        self.calls: list[Committed] = []
        self.committed = False

    def over(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls if self.committed else ():
            call(False)


_of_connections: WeakKeyDictionary[Any, _Waiting] = WeakKeyDictionary()
_listening: WeakSet[Any] = WeakSet()  # engines, pools and sessions
_of_sessions: WeakKeyDictionary[Any, list[_Waiting]] = WeakKeyDictionary()


def lender_of(given: Any) -> Lender | None:
    """*given* is a Session, a scoped_session or a Connection; None when it is not."""
    asynchronous = ("AsyncSession", "async_scoped_session", "AsyncConnection")
    if is_made_by("sqlalchemy.ext.asyncio", given, *asynchronous):
        raise OptionError(
            f"send() does not await; call it in a function that you give to {type(given).__name__}.run_sync(), "
            "and give what that function gets to transaction()"
        )
    if is_made_by("sqlalchemy.orm", given, "scoped_session"):
        return lambda: _lent_by_session(given())
    if is_made_by("sqlalchemy.orm", given, "Session"):
        return lambda: _lent_by_session(given)
    if is_made_by("sqlalchemy", given, "Connection"):
        return lambda: _lent_by(given)
    return None


def _lent_by_session(session: Any) -> Loan:
    # What it is given it does not close, so that its end is not that of the transaction.
    is_its_own = not is_made_by("sqlalchemy", session.get_bind(), "Connection")
    return _lent_by(session.connection(), session if is_its_own else None)


def _lent_by(connection: Any, session: Any = None) -> Loan:
    if not connection.in_transaction():
        raise OptionError(
            "no transaction is open on the SQLAlchemy Connection; "
            "send within `with connection.begin():` or `with engine.begin() as connection:`"
        )
    dialect, pooled = connection.dialect, connection.connection
    lent, driver = pooled.dbapi_connection, pooled.driver_connection
    if dialect.name not in KINDS:
        raise OptionError(f"the SQLAlchemy Connection is to {dialect.name}")
    if _commits_at_once(dialect, lent) and not in_transaction(driver):
        raise OptionError(
            "the SQLAlchemy Connection is in AUTOCOMMIT, so that there is no transaction to be part of; "
            "give the Engine, Session or Connection another isolation_level"
        )

    def begin() -> None:
        # Python's driver does so before the first INSERT, and a savepoint before that would commit what is in it.
        if dialect.name == "sqlite" and not in_transaction(driver):
            lent.cursor().execute("BEGIN IMMEDIATE")

    if dialect.paramstyle == "numeric_dollar":
        lent = Numbering(lent)
    return Loan(KINDS[dialect.name], lent, partial(_after_commit, connection, session), begin)


def _commits_at_once(dialect: Any, lent: Any) -> bool:
    # sqlite3 has an attribute that SQLAlchemy does not look at.
    return dialect.detect_autocommit_setting(lent) or getattr(lent, "autocommit", None) is True


def _after_commit(connection: Any, session: Any, call: Committed) -> None:
    waiting = _of_connections.get(connection)
    if waiting is None:
        waiting = _Waiting(session)
        _of_connections[connection] = connection.info[_WAITING] = waiting
        _listen_to(
            connection.engine,
            commit=_committing,
            commit_twophase=_committing,
            begin=_began,
            begin_twophase=_began,
        )
        _listen_to(connection.engine.pool, checkin=_returned)
        if session is not None:
            _of_sessions.setdefault(session, []).append(waiting)
            _listen_to(session, after_transaction_end=_ended)
    waiting.calls.append(call)


# SQLAlchemy tells that it is about to commit, not that it has.  That is over as soon as the Session's own
# transaction ends; for a Connection as soon as that goes back to its pool, where Engine.begin() gives it at
# once, or begins again.  Should the commit have failed, no audit is found to be pushed.


def _listen_to(target: Any, **listeners: Callable[..., None]) -> None:
    from sqlalchemy import event

    # Not event.contains(): it takes a target for another one that was at the same address.
    if target in _listening:
        return
    for name, listener in listeners.items():
        event.listen(target, name, listener)
    _listening.add(target)


def _committing(connection: Any, *_: Any) -> None:
    if connection in _of_connections:
        _of_connections[connection].committed = True


def _began(connection: Any, *_: Any) -> None:
    if connection in _of_connections:
        _of_connections.pop(connection).over()


def _returned(_: Any, pooled: Any) -> None:
    waiting = pooled.info.pop(_WAITING, None)
    if waiting is not None and not waiting.is_of_session:
        waiting.over()


def _ended(session: Any, transaction: Any) -> None:
    if transaction.parent is None:
        for waiting in _of_sessions.pop(session, ()):
            waiting.over()
