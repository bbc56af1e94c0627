"""What an error of a database driver means for the statement that met it."""

from __future__ import annotations

import enum
import re
import sqlite3

import peewee


class Fault(enum.Enum):
    CONTENTION = "the statement met another transaction; the same statement may succeed now"
    LOCKED = "another transaction has held a row locked for longer than we wait"
    UNREACHABLE = "the connection or the server is gone, or the server can't serve"
    NO_TABLE = "the table is missing"
    NO_COLUMN = "the table lacks a column"
    REFUSED = "the user lacks a right"
    OTHER = "the statement itself is at fault"


#: A statement that met one of these is worth repeating on the same connection.
REPEATED = {Fault.CONTENTION, Fault.LOCKED}

_POSTGRES = {
    "40001": Fault.CONTENTION,  # serialization failure
    "40P01": Fault.CONTENTION,  # deadlock
    "57014": Fault.CONTENTION,  # cancelled, by statement_timeout or an administrator
    "55P03": Fault.LOCKED,
    "42P01": Fault.NO_TABLE,
    "3F000": Fault.NO_TABLE,
    "42703": Fault.NO_COLUMN,
    "42501": Fault.REFUSED,
}
# Connection, resources, operator intervention, authorisation, no such database, read-only, timeouts that disconnect.
_POSTGRES_UNREACHABLE = ("08", "53", "57P", "58", "28", "3D", "25006", "25P03", "25P04")

_MYSQL = {
    1213: Fault.CONTENTION,  # deadlock
    1020: Fault.CONTENTION,  # record changed since last read
    1317: Fault.CONTENTION,  # cancelled by an administrator
    1969: Fault.CONTENTION,  # MariaDB's max_statement_time
    3024: Fault.CONTENTION,  # MySQL's max_execution_time
    1205: Fault.LOCKED,
    1146: Fault.NO_TABLE,
    1054: Fault.NO_COLUMN,
    1142: Fault.REFUSED,  # of a table
    1143: Fault.REFUSED,  # of a column
}
# Client and server errors of a connection that is lost, refused, shut down, out of resources, or read-only.
_MYSQL_UNREACHABLE = {
    1021, 1037, 1040, 1041, 1044, 1045, 1047, 1049, 1053, 1114, 1129, 1135, 1152, 1159, 1161, 1203,
    1226, 1290, 1792, 1836, 1927, 2002, 2003, 2005, 2006, 2013, 2014, 2026, 2055, 4031,
}  # fmt: skip

_SQLITE = {
    re.compile("is locked|schema has changed"): Fault.CONTENTION,
    re.compile("unable to open|disk I/O|is full|readonly database|not a database"): Fault.UNREACHABLE,
    re.compile("no such table"): Fault.NO_TABLE,
    re.compile("no such column|has no column named"): Fault.NO_COLUMN,
}  # fmt: skip


def first_line(error: BaseException) -> str:
    """What the driver says, in one short line; the lines after it may hold values."""
    original = getattr(error, "orig", None) or error
    text = next(iter(str(original).splitlines()), "")[:200]
    return "".join(c if c.isprintable() else " " for c in text) or type(original).__name__


def fault_of(error: BaseException) -> Fault:
    """Classify *error*; whatever is not Peewee's is OTHER."""
    if not isinstance(error, peewee.PeeweeException):
        return Fault.OTHER
    original = getattr(error, "orig", None)
    code = original.args[0] if original is not None and original.args else None
    # First, for PyMySQL's errors have a sqlstate as well, and it says less.
    if isinstance(code, int):
        return _mysql(error, code)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if isinstance(state, str):
        unreachable = state.startswith(_POSTGRES_UNREACHABLE)
        return _POSTGRES.get(state, Fault.UNREACHABLE if unreachable else Fault.OTHER)
    if isinstance(original, sqlite3.Error):
        found = (fault for text, fault in _SQLITE.items() if text.search(str(error)))
        return next(found, Fault.OTHER)
    # psycopg has no sqlstate for a connection that broke or could not be made.
    broken = isinstance(error, (peewee.OperationalError, peewee.InterfaceError))
    return Fault.UNREACHABLE if broken else Fault.OTHER


def _mysql(error: peewee.PeeweeException, code: int) -> Fault:
    # PyMySQL says InterfaceError(0, "") on a connection it has closed itself.
    unreachable = code in _MYSQL_UNREACHABLE or isinstance(error, peewee.InterfaceError)
    return _MYSQL.get(code, Fault.UNREACHABLE if unreachable else Fault.OTHER)
