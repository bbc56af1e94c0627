"""Sessions of SQLAlchemy with asyncio."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.util import await_only


@pytest.fixture
def in_session(database_url):
    """``in_session(driver, work)``: await *work* with an AsyncSession."""

    def run(driver, work):
        async def main():
            engine = create_async_engine(f"{driver}:{database_url.partition(':')[2]}")
            try:
                async with AsyncSession(engine) as session:
                    await work(session)
            finally:
                await engine.dispose()

        asyncio.run(main())

    return run


@pytest.mark.parametrize(
    ("way", "driver"),
    [
        ("session-sqlite", "sqlite+aiosqlite"),
        ("session-psycopg", "postgresql+psycopg"),
        ("session-psycopg", "postgresql+asyncpg"),
    ],
)
def test_an_async_session_lends_its_connection_in_run_sync(
    way, driver, in_session, shop, durable, charge, orders, ran, waiting, finish
):
    def place(session, order_id):
        session.execute(text(f"INSERT INTO orders (id) VALUES ({order_id})"))
        with durable.transaction(session):
            charge.send(order_id)
            charge.send_many([(order_id,), (f"{order_id} too",)])

    async def work(session):
        await session.run_sync(place, 1)
        await session.rollback()
        await session.run_sync(place, 2)
        assert waiting() == 0
        await session.commit()
        assert waiting() == 3

    in_session(driver, work)
    finish()
    assert ran == [2, 2, "2 too"]
    assert orders() == [2]


@pytest.mark.parametrize("way", ["session-psycopg"])
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_tasks_are_in_blocks_of_their_own(
    way, driver, in_session, shop, durable, charge, ran, finish
):
    async def work(session):
        begun, go_on = asyncio.Event(), asyncio.Event()

        def wait(session):
            with durable.transaction(session):
                charge.send("rolled back")
                begun.set()
                await_only(go_on.wait())
                charge.send("rolled back")

        def place(session):
            with durable.transaction(session):
                charge.send("committed")

        waits = asyncio.create_task(session.run_sync(wait))
        await begun.wait()
        async with AsyncSession(session.bind) as another:
            await another.run_sync(place)
            charge.send("in no block")
            await charge.send_async("by a thread")
            await another.commit()
        go_on.set()
        await waits
        await session.rollback()

    in_session(driver, work)
    finish()
    assert sorted(ran) == ["by a thread", "committed", "in no block"]


@pytest.mark.parametrize("way", ["session-sqlite"])
def test_an_async_session_itself_is_refused(way, in_session, shop, durable):
    async def work(session):
        with pytest.raises(ValueError, match=r"AsyncSession.run_sync\(\)"):
            durable.transaction(session).__enter__()
        with pytest.raises(ValueError, match=r"AsyncConnection.run_sync\(\)"):
            durable.transaction(await session.connection()).__enter__()

    in_session("sqlite+aiosqlite", work)


@pytest.mark.parametrize(("way", "driver"), [("session-psycopg", "postgresql+asyncpg")])
def test_a_unique_key_is_held_in_it(way, driver, in_session, shop, durable, charge, ran, finish):
    def once(session, order_id):
        with durable.transaction(session):
            return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    async def work(session):
        one = await session.run_sync(once, 1)
        assert await session.run_sync(once, 2) == one
        await session.commit()
        await session.run_sync(once, 3)
        assert list(durable.store.cancel([one])) == [1]
        assert await session.run_sync(once, 4) != one
        await session.commit()

    in_session(driver, work)
    finish()
    assert ran == [4]
