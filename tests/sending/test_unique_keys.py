"""``unique_key``: while an audit with that key is open its message id comes back, and nothing is sent."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_durable import RequeueImmediately, durable_actor
from dramatiq_durable.errors import OptionError

SENDERS = 8


@pytest.fixture
def once(charge):
    """``once(order_id, key="k", **options)``: send it with that key."""

    def send(order_id, key="k", **options):
        return charge.send_with_options(args=(order_id,), unique_key=key, **options)

    return send


def test_while_it_is_open_the_same_id_comes_back_and_nothing_is_sent(
    broker, durable, once, ran, waiting, eventually, audits, audit_of, work
):
    first = once("first")
    eventually(lambda: waiting(broker) == 1)
    before = audit_of(first)
    second = once("second")
    assert second.message_id == first.message_id
    assert second.args == ("second",)
    assert [audit.message_id for audit in audits(durable)] == [first.message_id]
    assert vars(audit_of(first))["__data__"] == vars(before)["__data__"]
    work()
    assert ran == ["first"]
    assert waiting(broker) == 0

    third = once("third")
    assert third.message_id != first.message_id
    work()
    assert ran == ["first", "third"]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2


def test_of_many_who_send_it_at_once_one_does(
    broker, durable, charge, once, ran, waiting, eventually, audits, work
):
    charge.send("before")  # which declares the queue
    together = threading.Barrier(SENDERS)

    def send(number):
        together.wait()
        return once(number).message_id

    with ThreadPoolExecutor(SENDERS) as pool:
        [one] = set(pool.map(send, range(SENDERS)))
    assert one in {audit.message_id for audit in audits(durable)}
    assert len(audits(durable)) == 2
    eventually(lambda: waiting(broker) == 2)
    work()
    assert len(ran) == 2


def test_on_each_database_too(stub_broker, db_durable, once, ran, waiting, audits, work):
    together = threading.Barrier(SENDERS)

    def send(number):
        together.wait()
        return once(number).message_id

    for _ in range(5):
        with ThreadPoolExecutor(SENDERS) as pool:
            assert len(set(pool.map(send, range(SENDERS)))) == 1
        assert waiting(stub_broker) == 1
        work()
    assert len(ran) == len(audits(db_durable)) == 5


def test_other_keys_other_actors_and_messages_without_a_key_are_not_held_up(
    stub_durable, charge, once, ran, work
):
    ship = durable_actor(ran.append, actor_name="ship")
    messages = [once(1), once(2, "another"), charge.send(3), charge.send(4), once(5, None)]
    messages.append(ship.send_with_options(args=(6,), unique_key="k"))
    assert len({message.message_id for message in messages}) == 6
    work()
    assert sorted(ran) == [1, 2, 3, 4, 5, 6]


def test_while_it_runs_its_own_message_too_cannot_be_sent(stub_durable, ran, work, audits):
    @durable_actor
    def charge(order_id):
        ran.append(charge.send_with_options(args=(2,), unique_key="k").message_id)

    message = charge.send_with_options(args=(1,), unique_key="k")
    work()
    assert ran == [message.message_id]
    assert len(audits(stub_durable)) == 1


def test_until_it_has_succeeded_it_is_open(stub_durable, ran, work, clock, monitor):
    @durable_actor(max_retries=1, min_backoff=1)
    def charge(order_id):
        ran.append(order_id)
        if len(ran) < 3:
            raise RuntimeError("no luck")
        if len(ran) < 4:
            raise RequeueImmediately

    def send(order_id):
        return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    first = send(1)
    work()
    assert ran == [1, 1]
    assert send(2) == first
    clock.move(hours=1)
    assert monitor.run_once().recovered == 1
    work()
    assert send(3) == first
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [1, 1, 1, 1]
    assert send(4) != first


@pytest.mark.failure(25)
def test_a_dead_job_holds_it_no_longer_and_again_when_it_is_retried(stub_durable, ran, work):
    @durable_actor(throws=RuntimeError)
    def charge(order_id):
        ran.append(order_id)
        if order_id == "dies":
            raise RuntimeError("final")

    def send(order_id, key):
        return charge.send_with_options(args=(order_id,), unique_key=key).message_id

    taken, kept = send("dies", "taken"), send("dies", "kept")
    work()
    other = send("other", "taken")
    assert other != taken
    assert sum(stub_durable.store.retry([taken, kept])) == 2
    assert send("again", "taken") == other
    assert send("again", "kept") == kept


def test_a_delay_is_part_of_being_open(stub_broker, stub_durable, once, waiting, audit_of):
    message = once(1, delay=timedelta(hours=1))
    scheduled_at = audit_of(message).scheduled_at
    assert once(2).message_id == message.message_id
    assert once(3, delay=timedelta(hours=2)).message_id == message.message_id
    assert audit_of(message).scheduled_at == scheduled_at
    assert (waiting(stub_broker), waiting(stub_broker, "default.DQ")) == (0, 1)


def test_the_result_is_that_of_the_message_that_was_sent(stub_broker, stub_durable, work):
    stub_broker.add_middleware(Results(backend=StubBackend(), store_results=True))

    @durable_actor
    def double(number):
        return 2 * number

    double.send_with_options(args=(21,), unique_key="k")
    second = double.send_with_options(args=(1,), unique_key="k")
    work()
    assert second.get_result() == 42


def test_it_holds_for_enqueue_and_for_coroutines(
    stub_broker, stub_durable, charge, once, ran, waiting, work
):
    message = once(1)
    other = charge.message_with_options(args=(2,), unique_key="k")
    assert stub_broker.enqueue(other).message_id == message.message_id

    async def send():
        sent = await charge.send_with_options_async(args=(3,), unique_key="k")
        return sent, await stub_durable.enqueue_async(other)

    assert {each.message_id for each in asyncio.run(send())} == {message.message_id}
    assert waiting(stub_broker) == 1
    work()
    stub_broker.enqueue(other)
    work()
    assert ran == [1, 2]


@pytest.mark.failure(7)
def test_a_message_with_a_key_may_be_enqueued_again_itself(
    stub_broker, stub_durable, charge, ran, work
):
    message = charge.message_with_options(args=(1,), unique_key="k")
    assert {stub_broker.enqueue(message).message_id for _ in range(3)} == {message.message_id}
    work()
    assert stub_broker.enqueue(message).message_id == message.message_id
    work()
    assert ran == [1]


@pytest.mark.parametrize("key", ["", 5, b"key", ["secret"], True], ids=repr)
def test_a_key_that_is_no_text_or_empty_is_refused(stub_durable, charge, once, audits, key):
    with pytest.raises(
        OptionError, match="message for 'charge': unique_key must be a text"
    ) as raised:
        once(1, key)
    assert "secret" not in str(raised.value)
    assert audits(stub_durable) == []


def test_it_is_no_option_of_actors_nor_of_the_middleware(stub_durable, sqlite_db, charge):
    with pytest.raises(ValueError, match="unique_key"):
        charge(unique_key="k")
    with pytest.raises(OptionError, match="no option unique_key"):
        type(stub_durable)(sqlite_db, unique_key="k")


def test_to_other_actors_it_is_an_option_as_any_other(stub_broker, stub_durable, waiting):
    @dramatiq.actor
    def greet():
        pass

    sent = [greet.send_with_options(unique_key="k").message_id for _ in range(2)]
    assert len(set(sent)) == waiting(stub_broker) == 2


@pytest.mark.failure(38)
def test_after_a_failover_that_lost_its_audit_a_job_has_its_key_again(
    stub_durable, charge, once, ran, running_worker, audits
):
    begun, go_on = threading.Event(), threading.Event()

    @durable_actor(actor_name="wait")
    def wait():
        begun.set()
        assert go_on.wait(10)

    message = wait.send_with_options(unique_key="k")
    stub_durable.store.audit.delete().execute()
    stub_durable.database.close()
    with running_worker(threads=1):
        assert begun.wait(10)
        assert wait.send_with_options(unique_key="k").message_id == message.message_id
        go_on.set()
