"""``send_async()``: the contract of ``send()``, and a loop that goes on meanwhile."""

import asyncio
import contextvars
import threading
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from pika import BlockingConnection

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor

THREADS = 4


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    def charge(order_id, currency="EUR"):
        ran.append((order_id, currency))

    return charge


def test_when_it_returns_the_audit_is_committed_and_the_message_sent(
    broker, charge, ran, work, waiting, audit_of, eventually
):
    message = asyncio.run(charge.send_async(42, currency="USD"))
    audit = audit_of(message)
    assert (audit.state, audit.enqueue_count) == ("pending", 1)
    assert audit.due_at == audit.enqueued_at + timedelta(minutes=11)
    eventually(lambda: waiting(broker) == 1)
    work()
    assert ran == [(42, "USD")]
    assert audit_of(message).state == "completed"


def test_it_returns_what_send_returns(broker, charge):
    sent, sent_async = charge.send(1), asyncio.run(charge.send_async(1))
    assert sent_async.options.keys() == sent.options.keys()
    assert sent_async.message_id != sent.message_id
    assert (sent_async.args, sent_async.queue_name) == (sent.args, sent.queue_name)


@pytest.mark.parametrize("delay", [5_000, timedelta(seconds=5)])
def test_it_takes_a_delay_and_the_options_of_a_message(
    stub_broker, stub_durable, waiting, audit_of, delay
):
    @durable_actor
    def charge(order_id, *, currency):
        pass

    async def send():
        return await charge.send_with_options_async(
            args=(42,), kwargs={"currency": "€"}, delay=delay, job_timeout=60_000
        )

    message = asyncio.run(send())
    audit = audit_of(message)
    assert audit.scheduled_at == audit.created_at + timedelta(seconds=5)
    assert audit.due_at == audit.scheduled_at + timedelta(minutes=2)
    assert (message.args, message.kwargs) == ((42,), {"currency": "€"})
    assert waiting(stub_broker, "default.DQ") == 1


def test_any_message_can_be_enqueued(stub_broker, stub_durable, waiting, audits):
    @durable_actor
    def charge():
        pass

    @dramatiq.actor
    def greet():
        pass

    async def enqueue():
        await stub_durable.enqueue_async(charge.message())
        await stub_durable.enqueue_async(greet.message(), delay=timedelta(minutes=1))

    asyncio.run(enqueue())
    assert [audit.actor_name for audit in audits(stub_durable)] == ["charge"]
    assert (waiting(stub_broker), waiting(stub_broker, "default.DQ")) == (1, 1)


@pytest.mark.failure(4)
def test_when_it_raises_there_is_neither_audit_nor_message(
    stub_broker, stub_durable, sqlite_db, waiting
):
    @durable_actor
    def charge():
        pass

    sqlite_db.execute_sql("ALTER TABLE durable_audits RENAME TO elsewhere")
    with pytest.raises(AuditWriteFailed, match="schema create"):
        asyncio.run(charge.send_async())
    assert waiting(stub_broker) == 0


@pytest.mark.failure(9)
def test_arguments_that_cannot_be_encoded_are_the_callers_error(stub_durable, audits):
    @durable_actor
    def charge(order):
        pass

    with pytest.raises(TypeError):
        asyncio.run(charge.send_async(object()))
    assert audits(stub_durable) == []


@pytest.mark.failure(3)
def test_a_broker_that_is_down_does_not_make_it_fail(
    far_broker, sqlite_db, make_durable, monitor, work, clock
):
    make_durable(far_broker, sqlite_db)
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    far_broker.proxy.down()
    asyncio.run(charge.send_async(42))
    far_broker.proxy.up()
    clock.move(minutes=1)
    monitor.run_once()
    work()
    assert ran == [42]


class Waits(dramatiq.Middleware):
    """Holds messages up on their way, those of which the test has let none pass yet."""

    def __init__(self):
        self.opened = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.threads = set()

    def before_enqueue(self, broker, message, delay):
        self.threads.add(threading.current_thread())
        self.arrived.release()
        assert self.opened.wait(30)

    async def wait_for(self, count):
        """Until so many of them have come; the loop must go on for that."""
        for _ in range(count):
            while not self.arrived.acquire(blocking=False):  # noqa: ASYNC110 - an asyncio.Event is of one thread
                await asyncio.sleep(0.001)


@pytest.fixture
def waits(stub_broker, stub_durable):
    """Before the middleware: what it holds has no audit yet."""
    waits = Waits()
    stub_broker.add_middleware(waits, before=DurableMiddleware)
    yield waits
    waits.opened.set()


@pytest.fixture
def slow(waits, ran):
    @durable_actor
    def slow(order_id):
        ran.append(order_id)

    return slow


@pytest.mark.parametrize("way", ["send_async", "enqueue_async"])
def test_the_loop_goes_on_meanwhile(stub_durable, waits, slow, audits, way):
    async def main():
        send = (
            slow.send_async(1)
            if way == "send_async"
            else stub_durable.enqueue_async(slow.message(1))
        )
        sending = asyncio.create_task(send)
        await waits.wait_for(1)
        assert not sending.done()
        assert audits(stub_durable) == []
        waits.opened.set()
        return await sending

    message = asyncio.run(main())
    assert [audit.message_id for audit in audits(stub_durable)] == [message.message_id]


def test_its_threads_are_few_and_serve_one_loop_after_the_other(waits, slow, ran, work):
    async def main(loop):
        sends = [asyncio.create_task(slow.send_async((loop, number))) for number in range(25)]
        if loop == 0:
            await waits.wait_for(THREADS)
            waits.opened.set()
        await asyncio.gather(*sends)

    for loop in range(3):
        asyncio.run(main(loop))
    assert len(waits.threads) == THREADS
    work()
    assert len(ran) == 75


def test_on_rabbitmq_each_thread_keeps_its_connection(rabbitmq_broker, sqlite_db, make_durable):
    make_durable(rabbitmq_broker, sqlite_db)

    @durable_actor
    def charge(order_id):
        pass

    async def main():
        await asyncio.gather(*(charge.send_async(number) for number in range(25)))

    asyncio.run(main())
    asyncio.run(main())
    of_threads = [c for c in rabbitmq_broker.connections if isinstance(c, BlockingConnection)]
    assert 1 <= len(of_threads) <= THREADS


def test_hooks_run_in_the_context_of_the_task(stub_broker, stub_durable):
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    class Notes(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            seen.append((message.args[0], tenant.get()))

    stub_broker.add_middleware(Notes())

    @durable_actor
    def charge(order_id):
        pass

    async def request(name):
        tenant.set(name)
        await charge.send_async(name)

    async def main():
        await asyncio.gather(*(request(name) for name in ("acme", "globex", "initech")))

    asyncio.run(main())
    assert sorted(seen) == [(name, name) for name in ("acme", "globex", "initech")]


# A task that is cancelled


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def errors(caplog):
    return [record for record in caplog.records if record.name.startswith("dramatiq_durable")]


def test_a_send_that_has_begun_goes_on_when_its_task_is_cancelled(
    waits, slow, ran, work, caplog, stub_durable, eventually, audits
):
    async def main():
        sending = asyncio.create_task(slow.send_async(1))
        await waits.wait_for(1)
        await cancelled(sending)

    asyncio.run(main())
    assert audits(stub_durable) == []
    waits.opened.set()
    eventually(lambda: audits(stub_durable))
    work()
    assert ran == [1]
    assert errors(caplog) == []


def test_its_failure_is_logged_then_without_arguments(
    waits, slow, caplog, stub_durable, sqlite_db, audits, eventually
):
    async def main():
        sending = asyncio.create_task(slow.send_async("a secret"))
        await waits.wait_for(1)
        await cancelled(sending)

    sqlite_db.execute_sql("ALTER TABLE durable_audits RENAME TO elsewhere")
    asyncio.run(main())
    assert errors(caplog) == []
    waits.opened.set()
    [record] = eventually(lambda: errors(caplog))
    assert record.levelname == "ERROR"
    assert "of actor 'slow' was not sent (could not write the audit" in record.getMessage()
    assert "a secret" not in caplog.text


def test_a_failure_that_somebody_sees_is_not_logged(slow, waits, caplog, sqlite_db):
    sqlite_db.execute_sql("ALTER TABLE durable_audits RENAME TO elsewhere")
    waits.opened.set()
    with pytest.raises(AuditWriteFailed):
        asyncio.run(slow.send_async(1))
    assert errors(caplog) == []


def test_a_send_that_waits_for_a_thread_is_not_made_when_its_task_is_cancelled(
    waits, slow, ran, work
):
    async def main():
        first = [asyncio.create_task(slow.send_async(number)) for number in range(THREADS)]
        await waits.wait_for(THREADS)
        late = asyncio.create_task(slow.send_async("late"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(late, 0.01)
        later = asyncio.create_task(slow.send_async("later"))
        await asyncio.sleep(0)
        waits.opened.set()
        await asyncio.gather(*first, later)

    asyncio.run(main())
    work()
    assert sorted(map(str, ran)) == ["0", "1", "2", "3", "later"]


def test_a_send_whose_loop_is_closed_goes_on(
    waits, slow, ran, work, stub_durable, audits, eventually
):
    loop = asyncio.new_event_loop()
    sending = loop.create_task(slow.send_async(1))
    loop.run_until_complete(waits.wait_for(1))
    sending.cancel()
    loop.run_until_complete(asyncio.gather(sending, return_exceptions=True))
    loop.close()
    waits.opened.set()
    eventually(lambda: audits(stub_durable))
    work()
    assert ran == [1]


@pytest.mark.failure(11)
def test_very_many_at_once_on_redis(redis_url, db, make_durable, use, audits, work):
    broker = use(RedisBroker(url=redis_url))
    durable = make_durable(broker, db)
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    async def main():
        await asyncio.gather(*(charge.send_async(number) for number in range(500)))

    asyncio.run(main())
    assert len(durable.store.list_audits(limit=1_000)) == 500
    work(threads=4)
    assert sorted(ran) == list(range(500))
