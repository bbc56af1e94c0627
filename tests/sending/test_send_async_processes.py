"""``send_async()`` and processes: forks, and the end of one in the middle of a send."""

import pytest

SOURCE = """
    import asyncio
    import os
    import pathlib
    import time

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq_durable import DurableMiddleware, durable_actor


    class Slow(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if message.args == ("slow",):
                pathlib.Path("begun").touch()
                time.sleep(0.5)


    broker = RedisBroker(url=os.environ["BROKER_URL"])
    durable = DurableMiddleware(os.environ["DATABASE_URL"])
    broker.add_middleware(Slow())
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor
    def charge(order_id):
        pass


    async def leave_in_the_middle():
        sending = asyncio.create_task(charge.send_async("slow"))
        while not pathlib.Path("begun").exists():
            await asyncio.sleep(0.001)
"""


@pytest.fixture
def shop(app, redis_url, postgres_url):
    shop = app(SOURCE, BROKER_URL=redis_url, DATABASE_URL=postgres_url)
    done = shop.run("schema", "create", "app:broker")
    assert done.returncode == 0, done.stderr
    return shop


def counted(shop):
    """How many audits there are, and messages in the broker."""
    done = shop.python(
        "import app; print(len(app.durable.store.list_audits()), app.broker.do_qsize('default'))"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_that_ends_in_the_middle_of_a_send_waits_for_it(shop):
    done = shop.python("import app, asyncio; asyncio.run(app.leave_in_the_middle())")
    assert (done.returncode, done.stderr) == (0, "")
    assert counted(shop) == ["1", "1"]


def test_a_send_that_fails_while_its_process_ends_is_logged(shop):
    done = shop.python(
        """
        import app, asyncio
        app.durable.store.connections.run(
            lambda lane: lane.execute_sql("ALTER TABLE durable_audits RENAME TO elsewhere")
        )
        asyncio.run(app.leave_in_the_middle())
        """
    )
    assert done.returncode == 0
    assert "of actor 'charge' was not sent" in done.stderr
    assert "slow" not in done.stderr


def test_without_a_loop_of_asyncio_it_raises_and_nothing_is_sent(shop):
    done = shop.python("import app; app.charge.send_async(42).send(None)")
    assert done.returncode == 1
    assert "no running event loop" in done.stderr
    assert counted(shop) == ["0", "0"]


@pytest.mark.failure(10)
def test_parent_and_child_of_a_fork_both_send(shop):
    done = shop.python(
        """
        import asyncio
        import os

        from app import charge


        async def main(name):
            await asyncio.gather(*(charge.send_async(f"{name} {number}") for number in range(10)))

        asyncio.run(main("before the fork"))
        child = os.fork()
        asyncio.run(main("child" if child == 0 else "parent"))
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0, status
        """
    )
    assert done.returncode == 0, done.stderr
    assert counted(shop) == ["30", "30"]
