"""What an error of a database driver means for the statement that met it."""

from __future__ import annotations

import enum
import re
import sqlite3

import peewee


class Fault(enum.Enum):
    CONTENTION = "the statement met another transaction; the same statement may succeed now"
    UNREACHABLE = "the connection or the server is gone, or the server can't serve"
    SCHEMA = "the table or one of its columns is missing"
    OTHER = "the statement itself is at fault"


# PostgreSQL: serialization failure, deadlock, lock not available.
_PG_CONTENTION = {"40001", "40P01", "55P03"}
# Connection, resources, operator intervention, authorisation, no such database, read-only.
_PG_UNREACHABLE = ("08", "53", "57P", "58", "28", "3D", "25006")
_PG_SCHEMA = {"42P01", "42703", "3F000"}

# MySQL and MariaDB: lock wait timeout, deadlock, record changed since last read.
_MYSQL_CONTENTION = {1205, 1213, 1020}
# Client and server errors of a connection that is lost, refused, shut down, out of resources, or read-only.
_MYSQL_UNREACHABLE = {
    1021, 1037, 1040, 1041, 1044, 1045, 1049, 1053, 1114, 1129, 1152, 1159, 1161, 1203, 1290, 1792,
    1927, 2002, 2003, 2005, 2006, 2013, 2014, 2026, 2055,
}  # fmt: skip
_MYSQL_SCHEMA = {1054, 1146}

_SQLITE_CONTENTION = re.compile("is locked|schema has changed")
_SQLITE_UNREACHABLE = re.compile("unable to open|disk I/O|is full|readonly database|not a database")
_SQLITE_SCHEMA = re.compile("no such table|no such column|has no column named")


def fault_of(error: BaseException) -> Fault:
    """Classify *error*; whatever is not Peewee's is OTHER."""
    if not isinstance(error, peewee.PeeweeException):
        return Fault.OTHER
    original = error.args[0] if error.args else None
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if isinstance(state, str):
        return _postgres(state)
    code = original.args[0] if isinstance(original, Exception) and original.args else None
    if isinstance(code, int):
        return _mysql(error, code)
    return _text(error, str(error))


def _postgres(state: str) -> Fault:
    if state in _PG_CONTENTION:
        return Fault.CONTENTION
    if state in _PG_SCHEMA:
        return Fault.SCHEMA
    return Fault.UNREACHABLE if state.startswith(_PG_UNREACHABLE) else Fault.OTHER


def _mysql(error: peewee.PeeweeException, code: int) -> Fault:
    if code in _MYSQL_CONTENTION:
        return Fault.CONTENTION
    if code in _MYSQL_SCHEMA:
        return Fault.SCHEMA
    # PyMySQL says InterfaceError(0, "") on a connection it has closed itself.
    if code in _MYSQL_UNREACHABLE or isinstance(error, peewee.InterfaceError):
        return Fault.UNREACHABLE
    return Fault.OTHER


def _text(error: peewee.PeeweeException, text: str) -> Fault:
    if _SQLITE_SCHEMA.search(text):
        return Fault.SCHEMA
    if _SQLITE_CONTENTION.search(text):
        return Fault.CONTENTION
    if _SQLITE_UNREACHABLE.search(text):
        return Fault.UNREACHABLE
    if isinstance(error.args[0] if error.args else None, sqlite3.Error):
        return Fault.OTHER
    # psycopg has no sqlstate for a connection that broke or could not be made.
    broken = isinstance(error, (peewee.OperationalError, peewee.InterfaceError))
    return Fault.UNREACHABLE if broken else Fault.OTHER
