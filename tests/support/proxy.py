"""A network between a client and a server that fails when it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit


class Proxy:
    """Forwards TCP connections to *url*'s port, and fails as a network does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._marker: bytes | None = None
        self._stay_down = False
        self.cuts = 0
        self._port = 0
        self.up()
        self.url = url.replace(f":{parts.port}", f":{self._port}", 1)

    def up(self) -> None:
        """Accept connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def down(self) -> None:
        """Close all connections and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets, self._sockets = self._sockets, set()
        for one in ([listener] if listener else []) + list(sockets):
            _shut(one)

    def close(self) -> None:
        self.down()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def lose_the_reply_to(self, text: str, then_down: bool = False) -> None:
        """Deliver what contains *text* (any contains ""), once, but close its connection instead of its reply."""
        self._stay_down = then_down
        self._marker = text.encode()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed by down()
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _shut(client)  # the server itself is down
                continue
            with self._lock:
                if self._listener is not listener:
                    _shut(client)
                    _shut(server)
                    return
                self._sockets |= {client, server}
            lost = threading.Event()
            self._start(self._requests, client, server, lost)
            self._start(self._replies, client, server, lost)

    def _requests(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        while data := _read(client):
            if self._marker is not None and self._marker in data:
                self._marker = None
                lost.set()
            _write(server, data)
        _shut(server)

    def _replies(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        while data := _read(server):
            if lost.is_set():
                self.cuts += 1
                if self._stay_down:
                    self.down()
                break
            _write(client, data)
        _shut(client)
        _shut(server)


def _read(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except OSError:
        return b""


def _write(one: socket.socket, data: bytes) -> None:
    try:
        one.sendall(data)
    except OSError:
        _shut(one)


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        one.close()
        return
    one.close()
