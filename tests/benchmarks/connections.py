"""How many connections a process has, as PostgreSQL counts them, directly and behind PgBouncer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import psycopg

from tests.support.app import App, Process
from tests.support.databases import PostgresServer
from tests.support.pgbouncer import PgbouncerServer

from . import databases
from .application import Application, processes_of
from .rounds import table
from .rows import empty, fill

JOBS = 1_000

#: Connections that PgBouncer may have to the server.
POOL = 3

_CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Watched:
    """The application on a PostgreSQL whose connections are counted."""

    def __init__(self, application: Application, redis_url: str, url: str) -> None:
        self._application = application
        self._store = application.durable.store
        self._redis_url = redis_url
        self._url = url

    def worker(self, threads: int, url: str) -> int:
        """The most that a worker has at once while it does all jobs."""
        self._empty()
        for number in range(JOBS):
            self._application.send(number)
        return self._most(lambda app: app.worker("-t", str(threads)), url, "state = 'completed'")

    def monitor(self, url: str) -> int:
        """The most that a monitor has while it sends all jobs again."""
        self._empty()
        fill(self._store, self._application.send(), lost=JOBS)
        self._application.broker.flush_all()
        return self._most(lambda app: app.monitor(), url, "enqueue_count = 2")

    def _empty(self) -> None:
        empty(self._store)
        self._application.broker.flush_all()

    def _most(self, begin: Callable[[App], Process], url: str, done: str) -> int:
        self._store.connections.close()
        most, jobs_done = 0, f"SELECT count(*) FROM durable_audits WHERE {done}"
        with processes_of(self._redis_url, url) as app, psycopg.connect(self._url) as watch:
            watch.autocommit = True
            process = begin(app)
            while _one(watch, jobs_done) < JOBS:
                assert process.returncode is None, process.output()
                most = max(most, _one(watch, _CLIENTS))
                time.sleep(0.005)
        return most


def run(rounds: int) -> Iterator[str]:
    """One round is enough, for nothing is timed."""
    server = PostgresServer()
    with closing(server), databases.redis() as redis_url:
        server.start()
        with server.fresh() as url, closing(Application(redis_url, url)) as application:
            application.durable.create_tables()
            watched = Watched(application, redis_url, url)
            lines = [
                *_lines(watched, "", lambda: nullcontext(url)),
                *_lines(watched, f", PgBouncer with a pool of {POOL}", lambda: _pgbouncer(url)),
            ]
    yield table(["connections of PostgreSQL", "most at once"], lines)


def _lines(
    watched: Watched, how: str, reach: Callable[[], AbstractContextManager[str]]
) -> Iterator[list[object]]:
    for threads in (8, 64):
        with reach() as url:
            yield [f"a worker with {threads} threads{how}", watched.worker(threads, url)]
    with reach() as url:
        yield [f"a monitor that sends again{how}", watched.monitor(url)]


@contextmanager
def _pgbouncer(url: str) -> Iterator[str]:
    with closing(PgbouncerServer(url, default_pool_size=str(POOL))) as server:
        server.start()
        yield server.url


def _one(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    value: int = row[0]
    return value


if __name__ == "__main__":
    for part in run(1):
        print(part, flush=True)
