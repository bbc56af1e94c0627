"""What a thread sends is part of no transaction of the task's, so that ``send_async()`` in one is refused."""

import asyncio

import dramatiq
import peewee
import pytest
from dramatiq.middleware import AsyncIO
from playhouse.db_url import connect

from dramatiq_durable import DurableError, current_audit, durable_actor

pytestmark = pytest.mark.failure(5)

REFUSED = r"cannot be part of the transaction that is open here; send\(\) is part of it"


class Changed(Exception):
    """What makes a transaction roll back."""


@pytest.fixture
def durable(stub_broker, db, make_durable):
    stub_broker.add_middleware(AsyncIO())
    return make_durable(stub_broker, db)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    return charge


@pytest.mark.parametrize("begin", ["atomic", "transaction"])
def test_in_a_transaction_it_is_refused_and_that_goes_on(durable, charge, db, begin, ran, work):
    async def main():
        with getattr(db, begin)():
            charge.send("sync")
            with pytest.raises(ValueError, match=REFUSED):
                await charge.send_async("async")
            with pytest.raises(DurableError, match=REFUSED):
                await charge.send_with_options_async(args=("async",), delay=1)
            with pytest.raises(DurableError, match=REFUSED):
                await durable.enqueue_async(charge.message("async"))
        await charge.send_async("after it")

    asyncio.run(main())
    work()
    assert sorted(ran) == ["after it", "sync"]


def test_in_a_savepoint_it_is_refused(charge, db, audits, durable):
    async def main():
        with db.atomic(), db.atomic():
            await charge.send_async(1)

    with pytest.raises(DurableError, match=REFUSED):
        asyncio.run(main())
    assert audits(durable) == []


def test_send_in_a_coroutine_is_part_of_the_transaction(charge, db, ran, work):
    async def main():
        with pytest.raises(Changed), db.atomic():
            charge.send("rolled back")
            raise Changed
        with db.atomic():
            charge.send("committed")

    asyncio.run(main())
    work()
    assert ran == ["committed"]


def test_a_task_that_is_made_in_a_transaction_begins_after_it(charge, db, ran, work):
    async def main():
        with pytest.raises(Changed), db.atomic():
            sending = asyncio.create_task(charge.send_async(1))
            raise Changed
        await sending

    asyncio.run(main())
    work()
    assert ran == [1]


def test_the_transaction_of_another_task_of_the_thread_counts(charge, db, ran, work):
    """For Peewee knows threads, and no tasks."""

    async def main():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def wait():
            with db.atomic():
                begun.set()
                await go_on.wait()

        waits = asyncio.create_task(wait())
        await begun.wait()
        with pytest.raises(DurableError, match=REFUSED):
            await charge.send_async("refused")
        go_on.set()
        await waits
        await charge.send_async("after it")

    asyncio.run(main())
    work()
    assert ran == ["after it"]


def test_in_a_transaction_of_another_database_it_is_sent(charge, database_url, ran, work):
    other = connect(database_url)

    async def main():
        with pytest.raises(Changed), other.atomic():
            await charge.send_async(1)
            raise Changed

    asyncio.run(main())
    other.close()
    work()
    assert ran == [1]


def test_in_manual_commit_it_is_on_its_own_as_send_is(charge, db, ran, work):
    async def main():
        db.connect(reuse_if_open=True)
        with db.manual_commit():
            db.begin()
            await charge.send_async(1)
            db.rollback()

    asyncio.run(main())
    work()
    assert ran == [1]


def test_a_message_of_another_actor_is_sent_there(durable, db, waiting, stub_broker):
    @dramatiq.actor
    def greet():
        pass

    async def main():
        with db.atomic():
            await durable.enqueue_async(greet.message())

    asyncio.run(main())
    assert waiting(stub_broker) == 1


def test_a_message_that_was_sent_before_may_be_enqueued_again_there(
    durable, charge, db, waiting, stub_broker, audits
):
    message = charge.send(1)

    async def main():
        with db.atomic():
            await durable.enqueue_async(message)

    asyncio.run(main())
    assert waiting(stub_broker) == 2
    assert len(audits(durable)) == 1


def test_an_in_memory_database_sends_at_once_as_it_always_does(stub_broker, make_durable, waiting):
    durable = make_durable(stub_broker, "sqlite:///:memory:")

    @durable_actor
    def charge(order_id):
        pass

    async def main():
        with durable.store.database.atomic():
            await charge.send_async(1)

    asyncio.run(main())
    assert waiting(stub_broker) == 1
    assert len(durable.store.list_audits()) == 1


def test_the_transaction_of_the_actors_own_audit_model_counts(
    stub_broker, db, sqlite_db, make_durable, audit_model
):
    make_durable(stub_broker, db)
    model = audit_model(sqlite_db)

    @durable_actor(audit_model=model)
    def ship():
        pass

    model.create_table()

    async def main():
        with sqlite_db.atomic():
            await ship.send_async()

    with pytest.raises(DurableError, match=REFUSED):
        asyncio.run(main())


@pytest.fixture
def audit_model():
    """``audit_model(database)``: a table of audits there."""
    from dramatiq_durable import Audit

    def make(database: peewee.Database):
        meta = type("Meta", (), {"database": database, "table_name": "shipping_audits"})
        return type("ShippingAudit", (Audit,), {"Meta": meta})

    return make


def test_in_the_transaction_of_a_running_job_it_is_refused_and_the_job_fails(
    durable, charge, ran, work, audit_of
):
    @durable_actor(max_retries=0)
    async def settle():
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            await charge.send_async("never")

    message = settle.send()
    work()
    assert ran == []
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == ("pending", 1)
    assert "OptionError" in audit.last_error
    assert "send() is part of it" in audit.last_error


def test_send_in_the_transaction_of_a_running_job_is_part_of_it(
    durable, charge, ran, work, audit_of
):
    @durable_actor(max_retries=0)
    async def settle():
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            charge.send("part of it")

    message = settle.send()
    work()
    assert ran == ["part of it"]
    assert audit_of(message).state == "completed"
