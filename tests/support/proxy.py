"""A network between a client and a server that fails when it is told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

HELD = 20  # seconds that a reply is held back at most


class Proxy:
    """Forwards TCP connections to *url*'s port, and fails as a network does.

    Parameters:
      port: Where it listens; default: any free one, the same after each :meth:`up`.
    """

    def __init__(self, url: str, port: int = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port or 0)
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._marker: bytes | None = None
        self._stay_down = False
        self._hold_after: bytes | None = None
        self._hold_until: bytes | None = None
        self._free = threading.Event()
        self._free.set()
        self.held = False
        self.cuts = 0
        self.accepted = 0
        self.delay = 0.0  # seconds that each piece of data takes, both ways
        self._port = port
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
        if listener is not None:
            _shut(listener)
        self.cut()

    def cut(self) -> None:
        """Close all connections that there are now."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _shut(one)

    @property
    def connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._sockets) // 2

    def close(self) -> None:
        self.delay = 0
        self._free.set()
        self.down()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def lose_the_reply_to(self, text: str, then_down: bool = False) -> None:
        """Deliver what contains *text*, once, but close its connection instead of its reply.

        The empty text is in the next request, whatever it is.
        """
        self._stay_down = then_down
        self._marker = text.encode()

    def hold_replies(self, after: str, until: str) -> None:
        """Deliver none between the request with *after* and the one with *until*; ``held`` is true when that has begun.

        Who waits for one in between is cut off in the end.
        """
        self._hold_after, self._hold_until = after.encode(), until.encode()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed by down()
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _shut(client)
                continue
            with self._lock:
                if self._listener is not listener:
                    _shut(client)
                    _shut(server)
                    return
                self._sockets |= {client, server}
                self.accepted += 1
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lost = threading.Event()
            self._start(self._requests, client, server, lost)
            self._start(self._replies, client, server, lost)

    def _requests(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        tail = b""  # a text may come in two pieces
        while data := _read(client):
            seen = tail + data
            tail = seen[-100:]
            if self._marker is not None and self._marker in data:
                self._marker = None
                lost.set()
            if self._hold_after is not None and self._hold_after in seen:
                self._hold_after = None
                self._free.clear()
                self.held = True
            time.sleep(self.delay)
            _write(server, data)
            if self._hold_until is not None and self._hold_until in seen:
                self._hold_until = None
                self._free.set()
        self._forget(server)

    def _replies(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        while data := _read(server):
            if lost.is_set() or not self._free.wait(HELD):
                self.cuts += 1
                if self._stay_down:
                    self.down()
                break
            time.sleep(self.delay)
            _write(client, data)
        self._forget(client, server)

    def _forget(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._sockets -= set(sockets)
        for one in sockets:
            _shut(one)


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
