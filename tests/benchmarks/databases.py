"""The servers that the benchmarks measure: they wait for the disk at each commit, as one has them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.support.databases import MariadbServer, PostgresServer
from tests.support.servers import RedisServer, Server

POSTGRES, MARIADB, SQLITE = "PostgreSQL", "MariaDB", "SQLite"
KINDS = (POSTGRES, MARIADB, SQLITE)

Fresh = Callable[[], AbstractContextManager[str]]


@contextmanager
def database(kind: str) -> Iterator[Fresh]:
    """``fresh()``: the URL of an empty database; all are of one server."""
    if kind == SQLITE:
        yield _sqlite
        return
    with _running(_server(kind)) as server:
        yield server.fresh


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis that keeps nothing on disk."""
    with _running(RedisServer()) as server:
        yield server.url


def _server(kind: str) -> Server:
    if kind == POSTGRES:
        return PostgresServer(fsync="on")
    return MariadbServer(innodb_flush_log_at_trx_commit="1")


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        yield server


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="durable-") as folder:
        yield f"sqlite:///{Path(folder) / 'audits.db'}"
