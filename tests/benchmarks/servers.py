"""The servers on which everything is measured: private, on loopback, and durable as in production."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psycopg
import pymysql

from tests.support.databases import MariadbServer, PostgresServer
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer, Server

S = TypeVar("S", bound=Server)


class Servers(ExitStack):
    """Each is started when it is first asked for, and ends with the ``with`` block."""

    @cached_property
    def redis(self) -> RedisServer:
        return self._started(RedisServer())

    @cached_property
    def rabbitmq(self) -> RabbitmqServer:
        return self._started(RabbitmqServer())

    @cached_property
    def postgres(self) -> PostgresServer:
        return self._started(PostgresServer(fsync="on", synchronous_commit="on"))

    @cached_property
    def mariadb(self) -> MariadbServer:
        return self._started(MariadbServer(innodb_flush_log_at_trx_commit="1"))

    @contextmanager
    def database(self, kind: str, folder: Path) -> Iterator[Database]:
        """An empty one; of SQLite a file in *folder*, and of none a file that nobody makes."""
        if kind in ("", "sqlite"):
            yield Database(f"sqlite:///{folder / 'benchmark.db'}", None)
            return
        server: Server = self.postgres if kind == "postgres" else self.mariadb
        with server.fresh() as url:
            yield Database(url, server)

    def _started(self, server: S) -> S:
        self.callback(server.close)
        server.start()
        return server


class Database:
    def __init__(self, url: str, server: Server | None) -> None:
        self.url = url
        self.server = server  # None: a file

    def number(self, question: str) -> int:
        """What a SELECT of one number says."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(question)
            [[number]] = cursor.fetchall()
            return int(number)

    def _connect(self) -> psycopg.Connection | pymysql.Connection | sqlite3.Connection:
        parts = urlsplit(self.url)
        if parts.scheme == "sqlite":
            return sqlite3.connect(parts.path)
        if parts.scheme == "postgresql":
            return psycopg.connect(self.url)
        return pymysql.connect(
            host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:]
        )
