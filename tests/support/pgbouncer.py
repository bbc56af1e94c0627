"""A private PgBouncer, which lends each transaction a connection of its own to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from .programs import find
from .servers import Server


class PgbouncerServer(Server):
    """In front of the PostgreSQL at *url*, in transaction mode unless *settings* say so."""

    account = "postgres"  # it refuses to run as root

    def __init__(self, url: str, **settings: str) -> None:
        self._program = find("pgbouncer")
        super().__init__()
        self._behind = urlsplit(url)
        own = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(self.folder / "users"),
            "pool_mode": "transaction",
            **settings,
        }
        (self.folder / "users").write_text(f'"{self._behind.username}" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._behind.hostname} port={self._behind.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in own.items())
        )

    @property
    def url(self) -> str:
        return self._behind._replace(
            netloc=f"{self._behind.username}@127.0.0.1:{self.port}"
        ).geturl()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        raise NotImplementedError("make the database on the server behind it")

    def _command(self) -> list[str]:
        return [self._program, str(self.folder / "pgbouncer.ini")]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True
