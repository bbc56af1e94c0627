"""A migration beside long transactions, other migrations, and what one that was killed has left."""

import threading
import time
from datetime import timedelta

import psycopg
import pytest

from dramatiq_durable.errors import TableLocked
from dramatiq_durable.store import differences, migrate

pytestmark = pytest.mark.failure(43)

TABLE = "durable_audits"
DUE = f"{TABLE}_due"

INSERT = f"""
    INSERT INTO {TABLE} (namespace, message_id, actor_name, queue_name, state, epoch, enqueue_count,
        start_count, crash_count, failure_count, requeue_count, job_timeout, lease, backoff, payload)
    VALUES ('another', %s, 'charge', 'default', 'pending', 0, 1, 0, 0, 0, 0, 1, 1, 1, 'payload')
"""

# What others wait at most, where by default they would wait for ever.
IMPATIENT = {
    "postgresql": "SET lock_timeout = '3s'",
    "mysql": "SET SESSION lock_wait_timeout = 3",
}


def unheard(sql):
    pass


def test_a_long_transaction_is_not_waited_for_in_front_of_all_others(
    server_url, table_at, console_of, in_the_background
):
    table = table_at(server_url)
    console, other = console_of(server_url), console_of(server_url)
    console.execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    other.execute(IMPATIENT[other.scheme])
    console.execute("BEGIN")
    console.execute(INSERT, "of a long transaction")

    finished = in_the_background(lambda: migrate(table, timedelta(seconds=6), unheard))
    inserted = 0
    while not finished.done():
        other.execute(INSERT, str(inserted))
        inserted += 1
    with pytest.raises(TableLocked, match="in use by long transactions"):
        finished.result()
    assert inserted > 0

    console.execute("COMMIT")
    assert migrate(table, timedelta(seconds=6), unheard) == []


def test_it_goes_on_when_the_transactions_that_use_the_table_have_ended(
    server_url, table_at, console_of, in_the_background, eventually
):
    table = table_at(server_url)
    console = console_of(server_url)
    console.execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    console.execute("BEGIN")
    console.execute(INSERT, "of a long transaction")
    told = []
    finished = in_the_background(lambda: migrate(table, timedelta(seconds=60), told.append))
    eventually(lambda: told)
    console.execute("COMMIT")
    assert finished.result(timeout=60) == []


def test_while_another_migration_runs_it_waits_for_that(
    server_url, table_at, console_of, in_the_background, eventually, caplog
):
    caplog.set_level("INFO")
    table = table_at(server_url)
    console_of(server_url).execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    begun, go_on = threading.Event(), threading.Event()

    def tell(sql):
        begun.set()
        assert go_on.wait(timeout=60)

    first = in_the_background(lambda: migrate(table, timedelta(0), tell))
    assert begun.wait(timeout=30)
    try:
        with pytest.raises(TableLocked, match="another migration"):
            migrate(table, timedelta(seconds=0.1), unheard)
        told = []
        second = in_the_background(lambda: migrate(table, timedelta(seconds=60), told.append))
        eventually(lambda: caplog.text.count("Another migration of this database runs") == 2)
    finally:
        go_on.set()
    assert (first.result(timeout=60), second.result(timeout=60), told) == ([], [], [])


def test_migrations_of_two_databases_do_not_wait_for_each_other(
    mariadb_server, table_at, console_of, in_the_background
):
    with mariadb_server.fresh() as one_url, mariadb_server.fresh() as another_url:
        one, another = table_at(one_url), table_at(another_url)
        for url in (one_url, another_url):
            console_of(url).execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
        met = threading.Barrier(2, timeout=30)

        def tell(sql):
            met.wait()

        first = in_the_background(lambda: migrate(one, timedelta(0), tell))
        second = in_the_background(lambda: migrate(another, timedelta(0), tell))
        assert (first.result(timeout=60), second.result(timeout=60)) == ([], [])


# PostgreSQL


@pytest.fixture
def console(postgres_url, console_of):
    return console_of(postgres_url)


@pytest.fixture
def indexes(console):
    """``indexes()``: the valid indexes of the table, with their definitions."""

    def read():
        rows = console.execute(
            "SELECT i.relname, pg_get_indexdef(i.oid), x.indisvalid FROM pg_index x"
            " JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = %s::regclass",
            TABLE,
        )
        return {name: definition if valid else None for name, definition, valid in rows}

    return read


OLD = f"CREATE INDEX {DUE} ON {TABLE} (namespace, due_at) WHERE due_at IS NOT NULL"
SUCCESSOR = f"CREATE INDEX {DUE}_new ON {TABLE} (namespace, due_at, id) WHERE due_at IS NOT NULL"
INVALID = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"

# What is there, and how many indexes have to be built.
LEFT_BEHIND = {
    "its index half-built": ([INVALID.format(DUE)], 1),
    "the successor half-built": (
        [f"DROP INDEX {DUE}", OLD, SUCCESSOR, INVALID.format(f"{DUE}_new")],
        1,
    ),
    "the successor built": ([f"DROP INDEX {DUE}", OLD, SUCCESSOR], 0),
    "the successor not yet renamed": ([f"DROP INDEX {DUE}", SUCCESSOR], 0),
    "both half-built": ([SUCCESSOR, INVALID.format(f"{DUE}_new"), INVALID.format(DUE)], 1),
    "a successor of what is right": ([SUCCESSOR], 0),
}


@pytest.mark.parametrize(("statements", "built"), LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_what_a_killed_migration_has_left_is_used_or_cleared_up(
    table_at, postgres_url, console, indexes, statements, built
):
    table = table_at(postgres_url)
    before = indexes()
    for statement in statements:
        console.execute(statement)
    assert differences(table) != []
    told = []
    assert migrate(table, timedelta(seconds=20), told.append) == []
    assert indexes() == before
    assert sum(sql.startswith("CREATE") for sql in told) == built


def test_an_index_is_there_all_the_time_while_another_takes_its_place(
    table_at, postgres_url, console, indexes
):
    table = table_at(postgres_url)
    console.execute(f"DROP INDEX {DUE}")
    console.execute(OLD)
    serving = []

    def look(sql):
        serving.append(
            [name for name, valid in indexes().items() if name.startswith(DUE) and valid]
        )

    assert migrate(table, timedelta(seconds=20), look) == []
    assert serving == [[DUE], [DUE, f"{DUE}_new"], [f"{DUE}_new"]]


WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%%'
    AND wait_event_type = 'Lock' AND now() - query_start > interval '1 second'
"""


def test_neither_timeouts_nor_the_isolation_of_the_application_stop_an_index_that_takes_long(
    table_at, postgres_url, console, indexes, in_the_background, eventually
):
    settings = {
        "statement_timeout": 500,
        "lock_timeout": 500,
        "default_transaction_isolation": "serializable",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    table = table_at(postgres_url, options=options)
    before = indexes()
    console.execute(f"DROP INDEX {DUE}")
    with psycopg.connect(postgres_url) as long:
        long.execute(f"UPDATE {TABLE} SET epoch = epoch")
        finished = in_the_background(lambda: migrate(table, timedelta(seconds=60), unheard))
        eventually(lambda: console.one(WAITING) == 1)
        started = time.monotonic()
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute(INSERT, ("beside it",))
        assert time.monotonic() - started < 1
    assert finished.result(timeout=60) == []
    assert indexes() == before
