"""What a migration does about indexes that others build meanwhile, about waits, and about text that drivers read."""

import sqlite3
from datetime import timedelta
from typing import Any

import peewee
import psycopg
import pytest
from playhouse.db_url import connect

from dramatiq_durable import Audit, DurableMiddleware
from dramatiq_durable.errors import TableLocked
from dramatiq_durable.store import differences, migrate

pytestmark = pytest.mark.failure(43)

TABLE = "durable_audits"
DUE, FINISHED = f"{TABLE}_due", f"{TABLE}_finished"


def unheard(sql):
    pass


@pytest.fixture
def table_of():
    """``table_of(url, **columns)``: the table of a subclass of Audit with such columns, which is not made."""
    made = []

    def make(url, **columns):
        meta = type("Meta", (), {"database": connect(url)})
        model: Any = type("OwnAudit", (Audit,), {"Meta": meta, **columns})
        made.append(DurableMiddleware(model._meta.database, audit_model=model))
        return made[-1].store.table

    yield make
    for durable in made:
        durable.store.connections.close()


def test_an_index_that_somebody_else_has_built_meanwhile_stays(
    table_at, postgres_url, console_of, in_the_background, eventually
):
    table = table_at(postgres_url)
    console, starting = console_of(postgres_url), console_of(postgres_url)
    definition = console.one(f"SELECT indexdef FROM pg_indexes WHERE indexname = '{FINISHED}'")
    console.execute(f"DROP INDEX {FINISHED}")
    starting.execute("BEGIN")
    starting.execute(definition)  # as an application that creates its tables does
    migrated = in_the_background(lambda: migrate(table, timedelta(seconds=60), unheard))
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    eventually(lambda: console.one(waits))
    starting.execute("COMMIT")
    assert migrated.result(timeout=60) == []
    there = f"SELECT count(*) FROM pg_indexes WHERE indexname = '{FINISHED}'"
    assert console.one(there) == 1


def test_a_declared_index_that_is_half_built_is_built_anew(table_of, postgres_url, console_of):
    table = table_of(postgres_url, tenant=peewee.CharField(null=True, unique=True))
    table.create()
    [declared] = [index.name for index in table.indexes if not index.is_ours]
    console_of(postgres_url).execute(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{declared}'::regclass"
    )
    assert [declared in each.says for each in differences(table)] == [True]
    assert migrate(table, timedelta(seconds=5), unheard) == []


def test_an_index_waits_for_a_long_transaction_no_longer_than_it_is_told(
    table_at, postgres_url, console_of, in_the_background
):
    table = table_at(postgres_url)
    console_of(postgres_url).execute(f"DROP INDEX {DUE}")
    with psycopg.connect(postgres_url) as long:
        long.execute(f"UPDATE {TABLE} SET epoch = epoch")
        migrated = in_the_background(lambda: migrate(table, timedelta(seconds=2), unheard))
        with pytest.raises(TableLocked):
            migrated.result(timeout=60)
    assert migrate(table, timedelta(seconds=5), unheard) == []


def test_on_sqlite_it_waits_as_long_for_who_writes(
    tmp_path, table_at, in_the_background, eventually
):
    file = tmp_path / "audits.db"
    table = table_at(f"sqlite:///{file}", timeout=0.1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TableLocked):
        migrate(table, timedelta(seconds=1), unheard)
    migrated = in_the_background(lambda: migrate(table, timedelta(seconds=60), unheard))
    other.execute("ROLLBACK")
    assert migrated.result(timeout=60) == []
    other.close()


def test_a_default_may_have_a_percent_sign(table_at, table_of, database_url):
    table_at(database_url)
    table = table_of(database_url, share=peewee.CharField(default="50%", max_length=20))
    assert migrate(table, timedelta(seconds=5), unheard) == []
    assert differences(table) == []
