"""Applications that use SQLAlchemy, Django or another Peewee Database, each with a ``connection`` to lend."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import django
from django.conf import settings
from django.db import connections, transaction
from playhouse.db_url import connect, parse
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

#: What SQLAlchemy calls the drivers.
DIALECTS = {
    "sqlite": "sqlite",
    "psycopg": "postgresql+psycopg",
    "psycopg2": "postgresql+psycopg2",
    "pymysql": "mysql+pymysql",
    "mysqldb": "mysql+mysqldb",
}

#: What Django makes of the scheme of a URL.
ENGINES = {"sqlite": "sqlite3", "postgresql": "postgresql", "mysql": "mysql"}


class WithSession:
    """SQLAlchemy's Session."""

    connection: Any

    def __init__(self, url: str, driver: str, alias: str = "") -> None:
        self.engine = create_engine(engine_url(url, driver))

    @contextmanager
    def begin(self) -> Iterator[None]:
        """A transaction of ``connection``."""
        with Session(self.engine) as self.connection, self.connection.begin():
            yield

    def savepoint(self) -> AbstractContextManager[Any]:
        savepoint: AbstractContextManager[Any] = self.connection.begin_nested()
        return savepoint

    def execute(self, sql: str) -> Any:
        return self.connection.execute(text(sql))

    def close(self) -> None:
        self.engine.dispose()


class WithConnection(WithSession):
    """SQLAlchemy's Connection."""

    @contextmanager
    def begin(self) -> Iterator[None]:
        with self.engine.begin() as self.connection:
            yield


class WithDjango:
    def __init__(self, url: str, driver: str, alias: str = "default") -> None:
        self.connection = django_connection(url, alias)

    def begin(self) -> AbstractContextManager[Any]:
        block: AbstractContextManager[Any] = transaction.atomic(self.connection.alias)
        return block

    savepoint = begin

    def execute(self, sql: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)

    def close(self) -> None:
        self.connection.close()


class WithPeewee:
    """Another Database object than the middleware's."""

    def __init__(self, url: str, driver: str, alias: str = "") -> None:
        self.connection: Any = connect(url)

    def begin(self) -> AbstractContextManager[Any]:
        block: AbstractContextManager[Any] = self.connection.atomic()
        return block

    savepoint = begin

    def execute(self, sql: str) -> Any:
        return self.connection.execute_sql(sql)

    def close(self) -> None:
        self.connection.close()


KINDS: dict[str, Callable[..., Any]] = {
    "session": WithSession,
    "connection": WithConnection,
    "django": WithDjango,
    "peewee": WithPeewee,
}


def engine_url(url: str, driver: str) -> str:
    """*url* for SQLAlchemy."""
    return f"{DIALECTS[driver]}:{url.partition(':')[2]}"


def django_connection(url: str, alias: str = "default") -> Any:
    """Make Django's connection *alias* one to the database at *url*."""
    if not settings.configured:
        settings.configure(SECRET_KEY="of a test", USE_TZ=True)
        django.setup()
    database = django_settings(url)
    if database["ENGINE"].endswith("mysql"):
        as_mysqldb()
    others = {name: value for name, value in connections.settings.items() if name != alias}
    connections.settings = connections.configure_settings({**others, alias: database})
    if alias in connections and hasattr(connections._connections, alias):
        del connections[alias]
    return connections[alias]


def django_settings(url: str) -> dict[str, Any]:
    """What Django's settings say of the database at *url*."""
    parameters = parse(url)
    engine = ENGINES[url.partition(":")[0]]
    database = {"ENGINE": f"django.db.backends.{engine}", "NAME": parameters["database"]}
    for name in ("host", "port", "user"):
        database[name.upper()] = str(parameters.get(name, ""))
    return database


def as_mysqldb() -> None:
    """Django wants mysqlclient; PyMySQL will do."""
    try:
        importlib.import_module("MySQLdb")
    except ModuleNotFoundError:
        import pymysql

        pymysql.install_as_MySQLdb()
