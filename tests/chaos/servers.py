"""The broker and the database of a lane, each behind a network that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import peewee
import pika
import redis
from playhouse.db_url import connect

from tests.support.databases import MariadbServer, PostgresServer
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer, Server, free_port

QUEUES = ["default", "default.DQ", "default.XQ"]
DISK = 48  # megabytes of the file system that is filled up


class Remote:
    """A server, and the proxy through which the lane's processes reach it."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.direct = url
        self.proxy = Proxy(url, free_port())
        self.url = self.proxy.url

    def restart(self) -> Callable[[], None]:
        """Kill it; the function returned starts it again."""
        self.server.kill()
        return self.server.start

    def forget(self) -> None:
        """Lose all messages."""
        if isinstance(self.server, RedisServer):
            with redis.Redis.from_url(self.direct) as client:
                client.flushall()
            return
        for queue in QUEUES:
            with pika.BlockingConnection(pika.URLParameters(self.direct)) as connection:
                connection.channel().queue_delete(queue)

    def limit_memory(self, limit: str) -> None:
        with redis.Redis.from_url(self.direct) as client:
            client.config_set("maxmemory", limit)


class File:
    """An SQLite database, on a small file system of its own where that is possible."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = self.direct = f"sqlite:///{folder / 'chaos.db'}?timeout=5"

    def lock(self) -> Callable[[], None]:
        """Take its write lock; the function returned lets go."""
        database: Any = connect(self.direct)
        end = time.monotonic() + 10
        while True:
            try:
                database.execute_sql("BEGIN IMMEDIATE")
                close: Callable[[], None] = database.close
                return close
            except peewee.OperationalError:
                assert time.monotonic() < end, "the database stays locked"

    def fill(self) -> Callable[[], None]:
        """Leave no byte free; the function returned makes room again."""
        path = self.folder / "filler"
        with open(path, "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return path.unlink


@contextmanager
def brokers(kind: str) -> Iterator[Remote]:
    with _server({"redis": RedisServer, "rabbitmq": RabbitmqServer}[kind]) as remote:
        yield remote


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Remote | File]:
    if kind == "sqlite":
        with _small_disk(folder / "disk") as disk:
            yield File(disk)
    else:
        with _server({"postgres": PostgresServer, "mariadb": MariadbServer}[kind]) as remote:
            yield remote


@contextmanager
def _server(make: Callable[[], Server]) -> Iterator[Remote]:
    with ExitStack() as stack:
        server = make()
        stack.callback(server.close)
        server.start()
        url = server.fresh()
        # Its end would ask a server that a fault has taken away.
        remote = Remote(server, url.__enter__())
        stack.callback(remote.proxy.close)
        yield remote


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", f"size={DISK}m", "chaos"]
    mounted = False
    if os.geteuid() == 0 and mount and umount:
        done = subprocess.run([mount, *options, str(folder)], capture_output=True)
        mounted = done.returncode == 0
    try:
        yield folder
    finally:
        if mounted and umount:
            subprocess.run([umount, "--lazy", str(folder)], check=False)


def is_small_disk(database: Remote | File) -> bool:
    """Whether it has a file system of its own."""
    return isinstance(database, File) and database.folder.is_mount()
