"""Connections of SQLAlchemy, and of its drivers, in their own ways."""

import sqlite3

import pytest
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from dramatiq_durable import DurableError

from .applications import engine_url
from .conftest import Changed, some

NOT_OPEN = "no transaction is open on the SQLAlchemy Connection"
AUTOCOMMIT = "in AUTOCOMMIT"


@some
def test_a_connection_without_a_transaction_is_refused(
    way, engine, durable, charge, ran, waiting, finish
):
    with engine.connect() as connection:
        with pytest.raises(ValueError, match=NOT_OPEN):
            durable.transaction(connection).__enter__()
        connection.execute(text("INSERT INTO orders (id) VALUES (1)"))  # which begins one
        with durable.transaction(connection):
            charge.send(1)
            connection.commit()
            with pytest.raises(DurableError, match=NOT_OPEN):
                charge.send(2)
            with pytest.raises(DurableError, match=NOT_OPEN):
                charge.send_many([(2,)])
    with pytest.raises(ValueError, match=NOT_OPEN):
        durable.transaction(connection).__enter__()
    finish()
    assert ran == [1]


@some
@pytest.mark.parametrize("commits", ["begins again", "is closed"])
def test_a_connection_pushes_when_it_begins_again_or_is_closed(
    way, engine, durable, charge, waiting, work, ran, commits
):
    connection = engine.connect()
    with connection.begin(), durable.transaction(connection):
        charge.send(1)
    assert waiting() == 0
    if commits == "is closed":
        connection.close()
        assert waiting() == 1
    else:
        with connection.begin():
            assert waiting() == 1
        connection.close()
        assert waiting() == 1
    work()
    assert ran == [1]


@pytest.mark.parametrize("way", ["connection-pymysql"])
def test_a_connection_of_two_phases_pushes_when_it_begins_again(
    way, engine, durable, charge, waiting
):
    with engine.connect() as connection:
        with connection.begin_twophase(), durable.transaction(connection):
            charge.send(1)
        assert waiting() == 0
        with connection.begin_twophase():
            assert waiting() == 1


@some
def test_a_rolled_back_connection_pushes_nothing_with_the_next_commit(
    way, engine, durable, charge, ran, finish
):
    with engine.connect() as connection:
        for value in ("rolled back", "committed"):
            with connection.begin() as transaction, durable.transaction(connection):
                charge.send(value)
                if value == "rolled back":
                    transaction.rollback()
    finish()
    assert ran == ["committed"]


@some
def test_each_engine_and_pool_will_do(way, engine, durable, charge, waiting, database_url):
    url = engine_url(database_url, way.partition("-")[2])
    for number in range(30):
        kept = create_engine(url, poolclass=NullPool if number % 2 else None)
        for each in (kept, kept.execution_options(), engine):
            with each.begin() as connection, durable.transaction(connection):
                charge.send(1)
            each.dispose()  # which makes a new pool that has the listeners of the old one
        assert waiting() == 3 * (number + 1)


@some
@pytest.mark.parametrize("where", ["engine", "options", "connection"])
def test_autocommit_is_refused(way, durable, database_url, where, shop):
    url = engine_url(database_url, way.partition("-")[2])
    level = {"isolation_level": "AUTOCOMMIT"}
    engine = create_engine(url, **(level if where == "engine" else {}))
    if where == "options":
        engine = engine.execution_options(**level)
    options = level if where == "connection" else {}
    with engine.connect().execution_options(**options) as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(ValueError, match=AUTOCOMMIT):
            durable.transaction(connection).__enter__()
    engine.dispose()


@pytest.mark.parametrize("way", ["session-sqlite"])
def test_sqlite_by_the_recipe_of_sqlalchemy_is_no_autocommit(
    way, durable, charge, engine, ran, finish
):
    @event.listens_for(engine, "connect")
    def connect(connection, record):
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    with pytest.raises(Changed), engine.begin() as connection, durable.transaction(connection):
        charge.send("rolled back")
        raise Changed
    with engine.begin() as connection, durable.transaction(connection):
        charge.send("committed")
    finish()
    assert ran == ["committed"]


@pytest.mark.parametrize("way", ["session-sqlite"])
@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.skipif(not hasattr(sqlite3.Connection, "autocommit"), reason="since Python 3.12")
def test_an_sqlite_connection_says_in_two_ways_what_it_is(
    way, durable, charge, shop, database_url, ran, finish, autocommit
):
    engine = create_engine(
        engine_url(database_url, "sqlite"), connect_args={"autocommit": autocommit}
    )
    with pytest.raises(ValueError if autocommit else Changed), engine.begin() as connection:
        with durable.transaction(connection):
            charge.send("rolled back")
        raise Changed
    finish()
    assert ran == []
    engine.dispose()


@pytest.mark.failure(5)
@pytest.mark.parametrize("way", ["session-psycopg", "connection-psycopg", "session-psycopg2"])
def test_a_commit_that_is_refused_pushes_nothing(
    way, shop, durable, charge, ran, waiting, finish, audits
):
    with shop.begin():
        shop.execute(
            "ALTER TABLE orders ADD COLUMN parent INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED"
        )
    with pytest.raises(IntegrityError), shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
        shop.execute("INSERT INTO orders (id, parent) VALUES (1, 2)")
    assert waiting() == 0
    assert audits(durable) == []
    finish()
    assert ran == []


@pytest.mark.failure(5)
@pytest.mark.parametrize("way", ["session-psycopg", "connection-psycopg", "session-psycopg2"])
def test_a_connection_that_is_lost_at_the_commit_pushes_nothing(
    way, shop, durable, charge, db, ran, waiting, finish
):
    with pytest.raises(OperationalError), shop.begin(), durable.transaction(shop.connection):
        charge.send("lost")
        db.execute_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
    assert waiting() == 0
    with shop.begin(), durable.transaction(shop.connection):
        charge.send("again")
    finish()
    assert ran == ["again"]
