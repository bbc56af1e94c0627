"""Where a send can't be part of the transaction it is refused, before anything is written."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

import peewee
import pytest
from playhouse.db_url import connect
from sqlalchemy import create_engine

from dramatiq_durable import Audit, AuditWriteFailed, DurableError, DurableMiddleware, durable_actor
from dramatiq_durable.errors import TableMissing

from .applications import KINDS
from .conftest import Changed

ELSEWHERE = "are not in the database"


@pytest.fixture
def beside(way, other_url):
    """The same kind of application on another database."""
    kind, _, driver = way.partition("-")
    made = KINDS[kind](other_url, driver, "beside")
    yield made
    made.close()


def make_model(database, table="durable_audits"):
    meta = type("Meta", (), {"database": database, "table_name": table})
    return type("Model", (Audit,), {"Meta": meta})


@pytest.fixture
def at(other_url):
    """The database at ``other_url``, with a table of audits."""
    database = connect(other_url)
    with database.connection_context():
        make_model(database).create_table()
        yield database


def test_in_another_database_it_is_refused_when_the_block_begins(
    beside, durable, charge, at, ran, waiting, finish
):
    with beside.begin():
        with pytest.raises(ValueError, match=ELSEWHERE), durable.transaction(beside.connection):
            pytest.fail("the block has begun")
        charge.send("on its own")
    finish()
    assert ran == ["on its own"]


def test_audits_of_another_database_are_refused_in_it_and_have_a_block_of_their_own(
    shop, beside, durable, at, ran, waiting, finish
):
    here = durable_actor(ran.append, actor_name="here")
    there = durable_actor(ran.append, actor_name="there", audit_model=make_model(at))
    with shop.begin(), durable.transaction(shop.connection):
        with pytest.raises(DurableError, match=ELSEWHERE):
            there.send("refused")
        with pytest.raises(DurableError, match=ELSEWHERE):
            there.send_many([("refused",)])
        here.send("here")
    with pytest.raises(Changed), beside.begin(), durable.transaction(beside.connection):
        with shop.begin(), durable.transaction(shop.connection):
            here.send("nested")
            there.send("rolled back")
            there.send_many([("rolled back",)])
            assert waiting() == 1
        assert waiting() == 2
        raise Changed
    with beside.begin(), durable.transaction(beside.connection):
        there.send("there")
    finish()
    assert sorted(ran) == ["here", "nested", "there"]


def test_without_a_table_it_is_refused_and_the_transaction_goes_on(
    stub_broker, shop, db, orders, waiting
):
    durable = DurableMiddleware(db)
    stub_broker.add_middleware(durable)
    charge = durable_actor(print, actor_name="charge")
    with shop.begin(), durable.transaction(shop.connection):
        with pytest.raises(AuditWriteFailed) as caught:
            charge.send(1)
        shop.execute("INSERT INTO orders (id) VALUES (1)")
    assert isinstance(caught.value.__cause__, TableMissing)
    assert waiting() == 0
    assert orders() == [1]


def test_audits_in_memory_are_on_their_own(stub_broker, shop, make_durable, waiting):
    """As in the transaction of a Peewee Database in memory: so tests need no database."""
    durable = make_durable(stub_broker, "sqlite:///:memory:")
    charge = durable_actor(print, actor_name="charge")
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
        assert waiting() == 1
        raise Changed


@pytest.mark.parametrize("way", ["session-psycopg", "django-postgres"])
def test_in_another_schema_it_is_refused(way, shop, durable, charge, db, audits):
    db.execute_sql("CREATE SCHEMA tenant")
    db.execute_sql("CREATE TABLE tenant.durable_audits (LIKE durable_audits INCLUDING ALL)")
    with shop.begin():
        shop.execute("SET LOCAL search_path TO tenant")
        with pytest.raises(ValueError, match=ELSEWHERE), durable.transaction(shop.connection):
            pytest.fail("the block has begun")
    with shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
    assert len(audits(durable)) == 1


@pytest.mark.parametrize("way", ["session-sqlite", "session-psycopg", "session-pymysql"])
def test_a_table_that_was_made_anew_is_the_same(way, shop, durable, charge, db, audits):
    for _ in range(2):
        with shop.begin(), durable.transaction(shop.connection):
            charge.send(1)
        db.drop_tables([durable.store.audit])
        durable.create_tables()
    assert audits(durable) == []


@pytest.mark.parametrize("way", ["session-sqlite"])
def test_a_file_may_have_several_names(way, shop, make_durable, stub_broker, sqlite_url, waiting):
    path = sqlite_url.removeprefix("sqlite:///")
    link = Path(path).with_name("link to.db")
    link.symlink_to(path)
    uri = peewee.SqliteDatabase(f"file:{quote(str(link))}?mode=rw", uri=True)
    durable = make_durable(stub_broker, uri)
    charge = durable_actor(print, actor_name="charge")
    with shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
    assert waiting() == 1


@pytest.mark.parametrize("way", ["session-psycopg"])
def test_another_kind_of_database_is_refused(way, shop, make_durable, stub_broker, sqlite_db):
    durable = make_durable(stub_broker, sqlite_db)
    with (
        shop.begin(),
        pytest.raises(ValueError, match=ELSEWHERE),
        durable.transaction(shop.connection),
    ):
        pytest.fail("the block has begun")


@pytest.mark.parametrize("way", ["session-psycopg", "django-postgres"])
def test_in_a_transaction_that_has_failed_it_is_refused(way, shop, durable, charge, waiting):
    with pytest.raises(DurableError, match="takes no statement"), shop.begin():
        with pytest.raises(Exception, match="nowhere"):
            shop.execute("SELECT 1 FROM nowhere")
        with durable.transaction(shop.connection):
            pytest.fail("the block has begun")
    assert waiting() == 0


@pytest.mark.parametrize("way", ["peewee-postgres"])
def test_a_peewee_database_without_a_transaction_is_refused(way, shop, durable):
    with pytest.raises(ValueError, match="no transaction is open on the Peewee Database"):
        durable.transaction(shop.connection).__enter__()
    shop.connection.connect(reuse_if_open=True)
    with (
        shop.connection.manual_commit(),
        pytest.raises(ValueError, match="no transaction is open on the Peewee Database"),
    ):
        durable.transaction(shop.connection).__enter__()


class OfAnotherKind(peewee.Database):
    def _connect(self):
        return sqlite3.connect(":memory:", isolation_level=None)


def test_a_peewee_database_of_another_kind_is_refused(stub_broker, sqlite_db, make_durable):
    durable = make_durable(stub_broker, sqlite_db)
    other = OfAnotherKind("another")
    with other.atomic(), pytest.raises(ValueError, match=ELSEWHERE):
        durable.transaction(other).__enter__()
    other.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: sqlite3.connect(":memory:"),
        lambda: create_engine("sqlite://"),
        lambda: None,
    ],
    ids=["sqlite3", "engine", "None"],
)
def test_what_does_not_tell_of_its_commit_is_refused(stub_broker, sqlite_db, make_durable, make):
    durable = make_durable(stub_broker, sqlite_db)
    given = make()
    with pytest.raises(ValueError, match=f"not {type(given).__name__}: a driver's connection does"):
        durable.transaction(given).__enter__()
    if isinstance(given, sqlite3.Connection):
        given.close()
