"""Whether a table stays as small as its rows when many jobs go through it, on PostgreSQL, which keeps old versions."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import peewee
import psycopg

from dramatiq_durable import Monitor
from dramatiq_durable.messages import new_audit
from dramatiq_durable.store import CLAIMS, MOST, Claim, NewAudit, Store
from dramatiq_durable.store.base import chunks
from tests.support.databases import PostgresServer
from tests.support.waiting import eventually

from . import databases
from .application import Application
from .rounds import table

JOBS, CYCLES = 1_000, 48

#: So that two dozen cycles are kept, which is the default retention.
CYCLE = timedelta(hours=1)

#: A cycle goes on until autovacuum has done what it would have had an hour for.
_IS_BEHIND = """
    SELECT n_dead_tup > 50 + 0.2 * n_live_tup
           OR EXISTS (SELECT FROM pg_stat_progress_vacuum)
    FROM pg_stat_user_tables WHERE relname = 'durable_audits'
"""

#: Jobs that are sent, and run, together.
TOGETHER = 1_024

_SIZES = """
    SELECT (SELECT count(*) FROM durable_audits) AS rows,
           pg_table_size('durable_audits') AS table_size, pg_indexes_size('durable_audits') AS indexes_size,
           n_tup_upd AS updates, n_tup_hot_upd AS hot_updates, autovacuum_count AS vacuums,
           dead_tuple_percent, free_percent, avg_leaf_density
    FROM pg_stat_user_tables, pgstattuple('durable_audits'), pgstatindex('durable_audits_due')
    WHERE relname = 'durable_audits'
"""

_HEADINGS = [
    "after jobs", "rows", "table, MB", "indexes, MB", "dead", "free", "leaves of the due index filled", "HOT updates",
    "autovacuums",
]  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """Jobs that are sent, run, and deleted when their retention is over."""

    application: Application
    connection: psycopg.Connection[tuple[Any, ...]]
    new: NewAudit

    def cycle(self, jobs: int) -> None:
        for first in range(0, jobs, TOGETHER):
            self._work(min(TOGETHER, jobs - first))
        Store.clock_offset += CYCLE
        Monitor(self.application.broker).run_once()
        eventually(lambda: not self._is_behind(), timeout=600)

    def _is_behind(self) -> bool:
        row = self.connection.execute(_IS_BEHIND).fetchone()
        return row is None or bool(row[0])

    def _work(self, jobs: int) -> None:
        store = self.application.durable.store
        news = [replace(self.new, message_id=str(uuid.uuid4())) for _ in range(jobs)]
        store.together(lambda lane: self._enqueue(news, lane))
        for part in chunks(news, CLAIMS):
            claims = [
                Claim(new.message_id, 0, uuid.uuid4().hex, None, "worker:1:Thread-1", None, None)
                for new in part
            ]
            assert not store.complete(list(store.claim_all(claims)))

    def _enqueue(self, news: list[NewAudit], lane: peewee.Database) -> None:
        for part in chunks(news, MOST):
            self.application.durable.store.enqueue_all(part, lane, is_out=True)

    def sizes(self, jobs: int) -> list[object]:
        row = self.connection.execute(_SIZES).fetchone()
        assert row is not None
        rows, table_size, indexes_size, updates, hot_updates, vacuums, dead, free, leaves = row
        return [
            f"{jobs:,}", f"{rows:,}", f"{table_size / 2**20:.1f}", f"{indexes_size / 2**20:.1f}",
            f"{dead:.0f}%", f"{free:.0f}%", f"{leaves:.0f}%", f"{hot_updates / max(updates, 1):.0%}", vacuums,
        ]  # fmt: skip


def run(jobs: int = JOBS, cycles: int = CYCLES) -> Iterator[str]:
    # Autovacuum looks at the table every second, so that a cycle is as good as hours.
    server = PostgresServer(autovacuum_naptime="1s")
    with closing(server), databases.redis() as redis_url:
        server.start()
        with server.fresh() as url, closing(Application(redis_url, url)) as application:
            application.durable.create_tables()
            before = Store.clock_offset
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION pgstattuple")
                message = application.message()
                policy = application.durable.policy(message)
                flow = Flow(application, connection, new_audit(message, policy, timedelta(0)))
                lines = []
                for number in range(1, cycles + 1):
                    flow.cycle(jobs)
                    if number % (cycles // 4) == 0:
                        lines.append(flow.sizes(number * jobs))
            Store.clock_offset = before
    yield f"PostgreSQL with its default settings, {jobs:,} jobs in each hour, kept for a day:"
    yield table(_HEADINGS, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help="in each cycle")
    parser.add_argument("--cycles", type=int, default=CYCLES)
    options = parser.parse_args()
    for part in run(options.jobs, options.cycles):
        print(part, flush=True)
