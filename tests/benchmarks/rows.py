"""A table of audits with very many rows, which the database makes of one that was really sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dramatiq
import peewee

from dramatiq_durable.lanes import plain_of
from dramatiq_durable.store import Store, instant

SECOND = 10**6  # microseconds, as in the table
HOUR = 3_600 * SECOND

#: With more, the indexes are made after the rows.
MANY = 50_000


@dataclass(frozen=True)
class Dialect:
    """How a database numbers rows and gives each a message_id, and puts that into a payload."""

    made: str  # a table of n and message_id
    payload: str
    given: str = ""  # what comes before the SELECT of it
    empty: str = "TRUNCATE TABLE"
    drop_index: str = "DROP INDEX {index}"
    settle: tuple[str, ...] = ("ANALYZE {table}",)


_DIALECTS = {
    peewee.PostgresqlDatabase: Dialect(
        made="(SELECT n, gen_random_uuid()::text AS message_id FROM generate_series(1::bigint, {rows}) AS n)",
        payload="convert_to(replace(convert_from(sent.payload, 'UTF8'), sent.message_id, made.message_id), 'UTF8')",
        settle=("VACUUM (ANALYZE) {table}", "CHECKPOINT"),
    ),
    peewee.MySQLDatabase: Dialect(
        made="(SELECT seq AS n, LEFT(CONCAT(MD5(CONCAT('{seed}', seq)), MD5(seq)), 36) AS message_id FROM seq_1_to_{rows})",
        payload="REPLACE(sent.payload, sent.message_id, made.message_id)",
        drop_index="DROP INDEX {index} ON {table}",
        settle=("ANALYZE TABLE {table}",),
    ),
    peewee.SqliteDatabase: Dialect(
        settle=("ANALYZE {table}", "PRAGMA wal_checkpoint(TRUNCATE)"),
        empty="DELETE FROM",
        made="numbered",
        payload="CAST(replace(CAST(sent.payload AS TEXT), sent.message_id, made.message_id) AS BLOB)",
        given="WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter LIMIT {rows}),"
        " numbered(n, message_id) AS MATERIALIZED (SELECT n, lower(hex(randomblob(18))) FROM counter) ",
    ),
}


def fill(
    store: Store,
    sent: dramatiq.Message[Any],
    *,
    completed: int = 0,
    expired: int = 0,
    waiting: int = 0,
    lost: int = 0,
) -> None:
    """Add so many audits like that of *sent*, which is deleted, and settle.

    Parameters:
      completed: Within the last hour.
      expired: Completed two days ago, which is longer than the default retention.
      waiting: Sent within the last minute, and so not due yet.
      lost: Sent an hour ago, and due since; whether a broker has them is another matter.
    """
    now = instant(store.clock())
    kinds = [
        (completed, _completed(now, HOUR, completed)),
        (expired, _completed(now - 48 * HOUR, HOUR, expired)),
        (waiting, _sent(now, 60 * SECOND, waiting)),
        (lost, {**_sent(now - HOUR, 60 * SECOND, lost), "due_at": f"{now - SECOND} - made.n"}),
    ]
    many = sum(rows for rows, _ in kinds) >= MANY
    indexes = store.ddl()[1:]
    # The store's own connections do not wait as long as this may take.
    with store.database.connection_context():
        _fill(store, sent, kinds, indexes if many else [])
    settle(store)


def empty(store: Store) -> None:
    """Leave no audit."""
    verb = _dialect(store).empty
    with store.database.connection_context():
        store.database.execute_sql(f"{verb} {_name(store)}")


def settle(store: Store) -> None:
    """Let the database do at once what it does sooner or later: count its rows, write what it owes to the disk."""
    with store.database.connection_context():
        for statement in _dialect(store).settle:
            cursor = store.database.execute_sql(statement.format(table=_name(store)))
            if cursor.description is not None:  # some tell what they have done
                cursor.fetchall()


def _fill(
    store: Store,
    sent: dramatiq.Message[Any],
    kinds: list[tuple[int, Mapping[str, str]]],
    indexes: list[str],
) -> None:
    database, dialect, table = store.database, _dialect(store), _name(store)
    for index in indexes:
        name = index.split(" ON ")[0].split()[-1]
        database.execute_sql(dialect.drop_index.format(index=name, table=table))
    columns = [field.column_name for field in store.audit._meta.sorted_fields if field.name != "id"]
    common = {"message_id": "made.message_id", "payload": dialect.payload}
    for rows, own in kinds:
        if rows:
            values = {**common, **own}
            words = {"rows": rows, "seed": uuid.uuid4().hex}
            database.execute_sql(
                f"INSERT INTO {table} ({', '.join(columns)}) {dialect.given.format(**words)}"
                f"SELECT {', '.join(values.get(name, f'sent.{name}') for name in columns)}"
                f" FROM {dialect.made.format(**words)} AS made, {table} AS sent"
                f" WHERE sent.message_id = '{sent.message_id}'"
            )
    database.execute_sql(f"DELETE FROM {table} WHERE message_id = '{sent.message_id}'")
    for index in indexes:
        database.execute_sql(index)


def _completed(now: int, within: int, rows: int) -> Mapping[str, str]:
    created_at = f"{now - within} + made.n * {within // max(rows, 1)}"
    return {
        **_times(created_at),
        "state": "'completed'",
        "epoch": "1",
        "claim_id": "REPLACE(made.message_id, '-', '')",
        "due_at": "NULL",
        "started_at": f"{created_at} + 20000",
        "finished_at": f"{created_at} + 120000",
        "start_count": "1",
        "broker_message_id": "made.message_id",
        "worker": "'worker-17.example.org:4711:Thread-5'",
        "payload": "''",
    }


def _sent(now: int, within: int, rows: int) -> Mapping[str, str]:
    created_at = f"{now - within} + made.n * {within // max(rows, 1)}"
    return {
        **_times(created_at),
        "due_at": f"{created_at} + sent.job_timeout + sent.backoff",
        "broker_message_id": "made.message_id",
    }


def _times(created_at: str) -> Mapping[str, str]:
    return dict.fromkeys(("created_at", "scheduled_at", "enqueued_at"), created_at)


def _dialect(store: Store) -> Dialect:
    database = plain_of(store.database)
    return next(each for kind, each in _DIALECTS.items() if isinstance(database, kind))


def _name(store: Store) -> str:
    name: str = store.audit._meta.table_name
    return name
