"""Private PostgreSQL and MariaDB servers.

They don't wait for the disk, unless they are told to.  What they have committed is in the
operating system's hands all the same, so that it is there after :meth:`Server.kill`.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql

from .programs import find
from .servers import Server


class PostgresServer(Server):
    account = "postgres"  # PostgreSQL refuses to run as root
    stop_signal = signal.SIGINT  # fast: clients are disconnected
    kill_signal = signal.SIGQUIT  # immediate: recovers from its log at the next start

    def __init__(self, **settings: str) -> None:
        initdb, self._program = find("initdb"), find("postgres")
        super().__init__()
        self._settings = settings
        self._data = self.folder / "data"
        self._numbers = itertools.count(1)
        options = "--username postgres --auth trust --encoding UTF8 --locale C --no-sync"
        self._prepare([initdb, "--pgdata", str(self._data), *options.split()])

    @property
    def url(self) -> str:
        return self._url("postgres")

    @contextmanager
    def fresh(self) -> Iterator[str]:
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        yield self._url(name)
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program, "-D", str(self._data), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())


class MariadbServer(Server):
    def __init__(self, **settings: str) -> None:
        install, self._program = find("mariadb-install-db"), find("mariadbd")
        super().__init__()
        self._settings = {name.replace("_", "-"): value for name, value in settings.items()}
        self._data = self.folder / "data"
        self._numbers = itertools.count(1)
        # In /tmp, a server that starts would delete the temporary tables of another.
        (self.folder / "tmp").mkdir()
        self._tmpdir = f"--tmpdir={self.folder / 'tmp'}"
        options = ["--skip-test-db", "--auth-root-authentication-method=normal", self._tmpdir]
        if os.geteuid() == 0:
            options.append("--user=root")
        self._prepare([install, "--no-defaults", f"--datadir={self._data}", *options])

    @property
    def url(self) -> str:
        return self._url("mysql")

    @contextmanager
    def fresh(self) -> Iterator[str]:
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        yield self._url(name)
        self._execute(f"DROP DATABASE {name}")

    def _url(self, database: str) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def _command(self) -> list[str]:
        files = {name: str(self.folder / name) for name in ("socket", "pid-file")}
        settings = {
            **files,
            "datadir": str(self._data),
            "tmpdir": str(self.folder),  # a server that starts deletes those of others from /tmp
            "user": "root",  # which means nothing unless we are root
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "innodb-flush-log-at-trx-commit": "2",
            "innodb-buffer-pool-size": "64M",
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        fixed = ["--no-defaults", "--skip-name-resolve", "--skip-log-bin", self._tmpdir]
        return [self._program, *fixed, *options]

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, connect_timeout=5
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
