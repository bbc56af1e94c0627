"""Whether a table stays as small as its rows when many jobs go through it, on PostgreSQL, which keeps old versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from dramatiq_durable import Monitor
from dramatiq_durable.store import MOST, Store
from tests.support.databases import PostgresServer

from . import databases
from .application import Application
from .rounds import table

JOBS, CYCLES = 2_000, 12

#: Of the default retention of a day, so that two cycles are kept.
CYCLE = timedelta(hours=10)

_SIZES = """
    SELECT pg_table_size('durable_audits'), pg_indexes_size('durable_audits'), n_tup_upd, n_tup_hot_upd,
           autovacuum_count, (SELECT count(*) FROM durable_audits)
    FROM pg_stat_user_tables WHERE relname = 'durable_audits'
"""


@dataclass(frozen=True)
class Sizes:
    table: int  # bytes
    indexes: int
    updates: int
    hot_updates: int
    vacuums: int
    rows: int


def run(jobs: int = JOBS, cycles: int = CYCLES) -> Iterator[str]:
    # Autovacuum looks at the table every second, so that a cycle is as good as hours.
    server = PostgresServer(autovacuum_naptime="1s")
    with closing(server), databases.redis() as redis_url:
        server.start()
        with server.fresh() as url, closing(Application(redis_url, url)) as application:
            application.durable.create_tables()
            before = Store.clock_offset
            sizes = [_cycle(application, url, jobs) for _ in range(cycles)]
            Store.clock_offset = before
    yield f"PostgreSQL, {jobs:,} jobs in each cycle, of which two are within the retention:"
    yield table(
        ["after", "rows", "table, MB", "indexes, MB", "HOT updates", "autovacuums"],
        [
            [number, each.rows, f"{each.table / 2**20:.1f}", f"{each.indexes / 2**20:.1f}",
             f"{each.hot_updates / max(each.updates, 1):.0%}", each.vacuums]
            for number, each in enumerate(sizes, 1) if number % 3 == 0
        ],
    )  # fmt: skip


def _cycle(application: Application, url: str, jobs: int) -> Sizes:
    """Send, claim and complete them, and delete what is past its retention then."""
    store = application.durable.store
    for first in range(0, jobs, MOST):
        sent = [application.send().message_id for _ in range(min(MOST, jobs - first))]
        holds = [store.claim(each, 0, f"claim of {each}", worker="worker:1") for each in sent]
        assert not store.complete([held for held in holds if held is not None])
    application.broker.flush_all()
    Store.clock_offset += CYCLE
    Monitor(application.broker).run_once()
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_SIZES).fetchone()
    assert row is not None
    return Sizes(*row)
