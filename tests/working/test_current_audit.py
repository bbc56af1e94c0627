"""``current_audit()`` in an actor: message_id, token, heartbeat."""

# mypy: disable-error-code="union-attr"
# In a durable job it is never None.

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import LeaseLost, Monitor, RequeueImmediately, current_audit, durable_actor

MINUTE = timedelta(minutes=1)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def would_recover(durable, stub_broker):
    """``would_recover()``: how many jobs a monitor would send again now."""
    return lambda: Monitor(stub_broker, dry_run=True).run_once().recovered


def test_it_is_the_audit_of_the_message_that_runs(durable, declare, seen, work):
    def body(order_id):
        seen.append((order_id, current_audit().message_id))

    charge = declare(body)
    messages = [charge.send(n) for n in range(5)]
    work(threads=3)
    assert sorted(seen) == [(n, message.message_id) for n, message in enumerate(messages)]


def test_it_is_the_coroutines_own_though_others_run_in_the_same_thread(durable, seen, work):
    arrived = []

    @durable_actor
    async def charge():
        arrived.append(current_audit().message_id)
        while len(arrived) < 2:  # noqa: ASYNC110 - the other one is in the same loop
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        seen.append(current_audit().message_id)

    messages = [charge.send() for _ in range(2)]
    work(threads=2)
    assert sorted(seen) == sorted(message.message_id for message in messages)


def test_it_reaches_what_the_coroutine_starts(durable, seen, work):
    @durable_actor
    async def charge():
        async def part():
            return current_audit().message_id

        seen.extend(await asyncio.gather(part(), asyncio.create_task(part())))
        seen.append(await asyncio.to_thread(lambda: current_audit().message_id))

    message = charge.send()
    work()
    assert seen == [message.message_id] * 3


def test_outside_of_a_job_there_is_none(durable, seen, work):
    @durable_actor
    def charge():
        seen.append(current_audit())

    assert current_audit() is None
    charge()
    assert seen == [None]
    charge.send()
    work()
    assert seen[1] is not None
    assert current_audit() is None


def test_in_an_actor_that_is_not_durable_there_is_none(durable, seen, work):
    @durable_actor
    def charge():
        pass

    @dramatiq.actor
    def greet():
        seen.append(current_audit())

    # One thread, in which a durable job runs before the other.
    charge.send()
    greet.send()
    work()
    assert seen == [None]


def test_in_an_actor_that_a_durable_one_calls_it_is_the_callers(durable, seen, work):
    @dramatiq.actor
    def greet():
        seen.append(current_audit().message_id)

    @durable_actor
    def ship():
        seen.append(current_audit().message_id)

    @durable_actor
    def charge():
        greet()
        ship()
        seen.append(current_audit().message_id)

    message = charge.send()
    work()
    assert seen == [message.message_id] * 3


def test_in_an_actor_that_calls_itself_it_stays(durable, seen, work):
    @durable_actor
    def charge(n):
        if n:
            charge(n - 1)
        seen.append(current_audit().message_id)

    message = charge.send(2)
    work()
    assert seen == [message.message_id] * 3


def test_in_the_hooks_of_middleware_there_is_none(placed, stub_broker, seen, work):
    class Looking(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            seen.append(current_audit())

        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen.append(current_audit())

        def after_ack(self, broker, message):
            seen.append(current_audit())

    stub_broker.middleware.insert(0, Looking())
    stub_broker.add_middleware(Looking())

    @durable_actor
    def charge():
        pass

    charge.send()
    work()
    assert seen == [None] * 6


def test_a_thread_of_its_own_has_none(durable, seen, work):
    @durable_actor
    def charge():
        with ThreadPoolExecutor() as pool:
            seen.append(pool.submit(current_audit).result())

    charge.send()
    work()
    assert seen == [None]


# Its token


def test_each_run_has_a_larger_token(durable, declare, seen, ran, work, recover, audit_of):
    def body():
        seen.append(current_audit().token)
        if len(seen) == 1:
            raise RequeueImmediately
        if len(seen) < 4:
            raise RuntimeError("no luck")

    message = declare(body, max_retries=1, min_backoff=1).send()
    work()
    recover(minutes=2)
    recover(minutes=9)
    assert len(seen) == 4
    assert seen == sorted(set(seen))
    assert audit_of(message).state == "completed"


def test_a_run_after_a_crash_has_a_larger_token(
    durable, stub_broker, seen, clock, recover, audit_of
):
    @durable_actor
    def charge():
        seen.append(current_audit().token)

    message = charge.send()
    stub_broker.flush_all()
    died = durable.store.claim(message.message_id, 0, "of another worker", worker="w2")
    recover(minutes=1)
    assert seen[0] > died.token
    assert audit_of(message).state == "completed"


def test_a_refused_copy_does_not_change_the_token(durable, stub_broker, seen, gate, running_worker):
    @durable_actor
    def charge():
        seen.append(current_audit().token)
        gate.enter()
        seen.append(current_audit().token)

    with running_worker(threads=2), gate:
        message = charge.send()
        gate.wait_for_body()
        stub_broker.enqueue(message)
    first, last = seen
    assert first == last


# Its heartbeat


@pytest.mark.parity(16)
@pytest.mark.parametrize("beats", [True, False])
def test_a_heartbeat_by_hand_renews_the_lease(
    durable, declare, clock, would_recover, seen, work, audit_of, beats
):
    def body():
        started = audit_of(message)
        seen.append(started.due_at - started.started_at)
        clock.move(minutes=4)
        if beats:
            current_audit().heartbeat()
            seen.append(audit_of(message).due_at - started.due_at >= 4 * MINUTE)
        clock.move(minutes=4)
        seen.append(would_recover())

    message = declare(body, heartbeat_interval=None, job_timeout=5 * MINUTE).message()
    durable.broker.enqueue(message)
    work()
    assert seen == [5 * MINUTE, *([True, 0] if beats else [1])]
    assert audit_of(message).state == "completed"


@pytest.mark.parity(16)
def test_the_claim_is_the_first_heartbeat(durable, clock, would_recover, seen, work):
    @durable_actor(heartbeat_interval=10_000)
    def charge():
        # The message was due long ago, the lease of 40 s has only begun.
        seen.append(would_recover())
        clock.move(seconds=38)
        seen.append(would_recover())
        clock.move(seconds=2)
        seen.append(would_recover())

    charge.send()
    clock.move(hours=1)
    assert would_recover() == 1
    work()
    assert seen == [0, 0, 1]


@pytest.mark.failure(17)
def test_a_heartbeat_by_hand_that_is_refused_raises_lease_lost(
    durable, declare, seen, stub_broker, work, audit_of, errors_logged
):
    def body():
        audit = current_audit()
        assert list(durable.store.cancel([audit.message_id])) == [1]
        try:
            audit.heartbeat()
        except LeaseLost as error:
            seen.append(error)
            raise

    message = declare(body, max_retries=3, min_backoff=1).send()
    work()
    assert len(seen) == 1
    assert message.message_id in str(seen[0])
    assert audit_of(message).state == "cancelled"
    assert stub_broker.dead_letters == []
    assert errors_logged() == []
