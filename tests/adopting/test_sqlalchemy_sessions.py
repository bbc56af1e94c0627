"""Sessions of SQLAlchemy, in their own ways."""

import gc
import weakref

import dramatiq
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from .conftest import some


@some
def test_a_scoped_session_lends_that_of_its_thread(way, engine, durable, charge, ran, work):
    session = scoped_session(sessionmaker(engine))
    session.execute(text("INSERT INTO orders (id) VALUES (1)"))
    with durable.transaction(session):
        charge.send("rolled back")
    session.rollback()
    with durable.transaction(session):
        charge.send("committed")
    session.commit()
    work()
    assert ran == ["committed"]
    session.remove()


@some
def test_a_session_that_is_closed_rolls_it_back(way, engine, durable, charge, ran, finish):
    with Session(engine) as session, durable.transaction(session):
        charge.send(1)
    finish()
    assert ran == []


@some
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up")
def test_a_session_that_is_forgotten_gives_its_connection_back(
    way, engine, durable, charge, ran, finish
):
    session = Session(engine)
    with durable.transaction(session):
        charge.send(1)
        charge.send_many([(2,)])
    assert engine.pool.checkedout() == 1
    forgotten = weakref.ref(session)
    del session
    gc.collect()
    assert forgotten() is None
    assert engine.pool.checkedout() == 0
    finish()
    assert ran == []


@some
def test_a_block_may_hold_several_transactions_of_a_session(
    way, engine, durable, charge, ran, waiting, finish
):
    with Session(engine) as session, durable.transaction(session):
        charge.send("first")
        session.commit()
        assert waiting() == 1
        charge.send("rolled back")
        session.rollback()
        charge.send_many([("second",)])
        session.commit()
        assert waiting() == 2
        charge.send("never committed")
    finish()
    assert ran == ["first", "second"]


@pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "session-pymysql"])
def test_what_a_hook_does_at_the_push_is_part_of_nothing(
    way, stub_broker, shop, durable, charge, orders, ran, finish
):
    engine = shop.engine.execution_options()
    session = scoped_session(sessionmaker(engine))

    class Follows(dramatiq.Middleware):
        def after_enqueue(self, broker, message, delay):
            if message.args == ("first",):
                checked_out.append(engine.pool.checkedout())
                session.execute(text("INSERT INTO orders (id) VALUES (1)"))
                session.commit()
                charge.send("follows")

    checked_out = []
    stub_broker.add_middleware(Follows())
    if way.startswith("session"):
        with durable.transaction(session):
            charge.send("first")
            session.commit()
            charge.send("never committed")
        session.rollback()
        assert checked_out == [0]  # a slow broker holds no connection up
    else:
        with shop.begin(), durable.transaction(shop.connection):
            charge.send("first")
    session.remove()
    finish()
    assert sorted(ran) == ["first", "follows"]
    assert orders() == [1]


@some
def test_a_session_that_must_be_begun_is_not_begun(way, engine, durable, charge):
    session = Session(engine, autobegin=False)
    with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
        durable.transaction(session).__enter__()


@some
def test_a_session_in_an_outer_transaction_pushes_after_that(
    way, engine, durable, charge, ran, waiting, finish
):
    with engine.begin() as connection:
        for _ in range(2):
            session = Session(connection, join_transaction_mode="create_savepoint")
            with session, durable.transaction(session):
                charge.send("committed")
                session.commit()
                charge.send("rolled back")
        assert waiting() == 0
    assert waiting() == 2
    finish()
    assert ran == ["committed"] * 2


@pytest.mark.parametrize("way", ["session-pymysql"])
@pytest.mark.parametrize("prepares", [True, False])
def test_a_transaction_of_two_phases_pushes_after_the_second(
    way, engine, durable, charge, ran, waiting, work, prepares
):
    with Session(engine, twophase=True) as session, durable.transaction(session):
        charge.send("rolled back")
        session.rollback()
        charge.send_many([("committed",)])
        if prepares:
            session.prepare()
            assert waiting() == 0
        session.commit()
    assert waiting() == 1
    work()
    assert ran == ["committed"]


@pytest.mark.parametrize("way", ["session-sqlite"])
def test_its_own_hooks_run_beside_ours(way, engine, durable, charge, waiting):
    told = []
    with Session(engine) as session:
        event.listen(session, "after_commit", lambda session: told.append("session"))
        event.listen(engine, "commit", lambda connection: told.append("engine"))
        with durable.transaction(session):
            charge.send(1)
        session.commit()
    assert told == ["engine", "session"]
    assert waiting() == 1
