"""A network between a client and a server that fails when it is told to."""

import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Forwards TCP connections to *url*'s port, and fails as a network does."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = None
        self._sockets = set()
        self._threads = []
        self._lock = threading.Lock()
        self._marker = None
        self._stay_down = False
        self.cuts = 0
        self._port = 0
        self.up()
        self.url = url.replace(f":{parts.port}", f":{self._port}", 1)

    def up(self):
        """Accept connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def down(self):
        """Close all connections and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets, self._sockets = self._sockets, set()
        for one in ([listener] if listener else []) + list(sockets):
            _shut(one)

    def close(self):
        self.down()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def lose_the_reply_to(self, text, then_down=False):
        """Deliver what contains *text*, once, but close its connection instead of its reply."""
        self._stay_down = then_down
        self._marker = text.encode()

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed by down()
            server = socket.create_connection(self._target)
            with self._lock:
                if self._listener is not listener:
                    _shut(client)
                    _shut(server)
                    return
                self._sockets |= {client, server}
            lost = threading.Event()
            self._start(self._requests, client, server, lost)
            self._start(self._replies, client, server, lost)

    def _requests(self, client, server, lost):
        while data := _read(client):
            if self._marker is not None and self._marker in data:
                self._marker = None
                lost.set()
            _write(server, data)
        _shut(server)

    def _replies(self, client, server, lost):
        while data := _read(server):
            if lost.is_set():
                self.cuts += 1
                if self._stay_down:
                    self.down()
                break
            _write(client, data)
        _shut(client)
        _shut(server)


def _read(one):
    try:
        return one.recv(1 << 20)
    except OSError:
        return b""


def _write(one, data):
    try:
        one.sendall(data)
    except OSError:
        _shut(one)


def _shut(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        one.close()
        return
    one.close()
