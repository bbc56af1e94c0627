"""What is sent in a block's thread by its middleware is part of it, and nothing else."""

import asyncio
import contextvars
import threading

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import SkipMessage

from dramatiq_durable import DurableError, durable_actor

from .applications import KINDS
from .conftest import Changed


def test_a_send_of_another_thread_is_not_part_of_it(shop, durable, charge, ran, waiting, finish):
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        # As asyncio.to_thread() does.
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(charge.send, "another thread")
        )
        thread.start()
        thread.join()
        assert waiting() == 1
        raise Changed
    finish()
    assert ran == ["another thread"]


def test_after_the_block_a_send_is_on_its_own(shop, durable, charge, ran, waiting, finish):
    with pytest.raises(Changed), shop.begin():
        with durable.transaction(shop.connection):
            taken_along = contextvars.copy_context()  # as a task of asyncio's does
        charge.send("after it")
        taken_along.run(charge.send, "in a task that began in it")
        assert waiting() == 2
        raise Changed
    finish()
    assert ran == ["after it", "in a task that began in it"]


@pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "django-mariadb"])
def test_of_two_blocks_the_inner_one_counts(way, shop, database_url, durable, charge, ran, finish):
    kind, _, driver = way.partition("-")
    inner = KINDS[kind](database_url, driver, "inner")
    with shop.begin(), durable.transaction(shop.connection):
        with pytest.raises(Changed), inner.begin(), durable.transaction(inner.connection):
            charge.send("rolled back")
            raise Changed
        charge.send("outer")
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        with inner.begin(), durable.transaction(inner.connection):
            charge.send("inner")
        charge.send("rolled back")
        raise Changed
    inner.close()
    finish()
    assert sorted(ran) == ["inner", "outer"]


@pytest.mark.parametrize("way", ["session-sqlite", "connection-psycopg", "peewee-postgres"])
def test_a_coroutine_may_not_have_a_thread_send_in_it(way, shop, durable, charge, ran, finish):
    async def main():
        with shop.begin(), durable.transaction(shop.connection):
            with pytest.raises(DurableError, match="cannot be part of the transaction"):
                await charge.send_async("refused")
            charge.send("sent")
        await charge.send_async("after it")

    asyncio.run(main())
    finish()
    assert ran == ["sent", "after it"]


@pytest.mark.parametrize("way", ["session-sqlite", "django-postgres"])
@pytest.mark.parametrize("durably", [True, False])
@pytest.mark.parametrize("ends", ["returns", "is skipped"])
def test_a_block_that_an_interrupt_keeps_from_ending_ends_with_the_job(
    way, shop, durable, charge, ran, work, durably, ends
):
    left = []

    @dramatiq.actor(max_retries=0, durable=durably)
    def leave():
        with shop.begin():
            # Of Django each thread has a connection of its own.
            connection = getattr(shop.connection, "alias", shop.connection)
            left.append(durable.transaction(connection))
            left[0].__enter__()
        if ends == "is skipped":
            raise SkipMessage

    @dramatiq.actor(max_retries=0, durable=durably)
    def follow():
        charge.send("the next job's")

    @durable_actor
    def succeed(*_):
        ran.append("the callback")

    leave.send_with_options(on_success=succeed)
    follow.send()
    work()
    assert len(left) == 1
    assert ran == ["the callback"] * (ends == "returns") + ["the next job's"]


@pytest.mark.parametrize("way", ["session-sqlite", "django-postgres"])
def test_what_another_middleware_sends_is_not_part_of_it(
    way, shop, durable, charge, db, make_durable, ran
):
    broker = StubBroker()
    make_durable(broker, db, namespace="another")
    notify = durable_actor(ran.append, actor_name="notify", broker=broker)
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        notify.send(1)
        assert broker.queues["default"].qsize() == 1
        raise Changed


def test_an_actor_that_is_not_durable_is_pushed_at_once(shop, durable, charge, waiting):
    @dramatiq.actor
    def greet():
        pass

    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        greet.send()
        assert waiting() == 1
        raise Changed
