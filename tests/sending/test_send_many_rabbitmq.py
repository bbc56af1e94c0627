"""``send_many()`` on a RabbitMQ that confirms: up to 64 messages are out before their confirmations are waited for."""

import logging

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from dramatiq_durable import durable_actor
from dramatiq_durable.pipelining import publisher

from .conftest import Noting

NUMBER = 200


@pytest.fixture(params=["rabbitmq-confirm"])
def far_broker(far_broker):
    return far_broker


@pytest.fixture
def proxy(far_broker):
    return far_broker.proxy


@pytest.fixture
def far_durable(far_broker, sqlite_db, make_durable):
    return make_durable(far_broker, sqlite_db, Noting)


@pytest.fixture
def replace_the_queue(rabbitmq_url):
    """``replace_the_queue(**arguments)``: another is where the broker thinks its own is; with none, none."""

    def replace(**arguments):
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
            channel = connection.channel()
            channel.queue_delete("default")
            if arguments:
                arguments = {f"x-{name}".replace("_", "-"): arguments[name] for name in arguments}
                channel.queue_declare("default", durable=True, arguments=arguments)

    return replace


def numbers(taken):
    return [message.args[0] for _, message in taken]


# Together


@pytest.mark.failure(11)
def test_64_messages_are_out_before_the_first_confirmation_is_waited_for(
    proxy, far_durable, charge, queued
):
    proxy.hold_replies("the first", until="the last")
    charge.send_many([("the first",), *((n,) for n in range(62)), ("the last",), ("another",)])
    assert proxy.held
    assert proxy.cuts == 0
    assert len(queued()) == 65


@pytest.mark.failure(11)
def test_a_group_goes_out_in_this_way(proxy, far_durable, charge, queued):
    proxy.hold_replies("the first", until="the last")
    dramatiq.group([charge.message(text) for text in ("the first", "another", "the last")]).run()
    assert proxy.held
    assert proxy.cuts == 0
    assert len(queued()) == 3


@pytest.mark.failure(35)
def test_a_monitor_sends_what_is_lost_in_this_way(
    far_broker, proxy, far_durable, charge, queued, clock, monitor
):
    charge.send_many([("the first",), *((n,) for n in range(62)), ("the last",)])
    far_broker.flush_all()
    clock.move(minutes=11)
    proxy.hold_replies("the first", until="the last")
    assert monitor.run_once().recovered == 64
    assert proxy.held
    assert proxy.cuts == 0
    assert len(queued()) == 64


def test_lists_one_after_the_other_go_over_one_connection(proxy, far_durable, charge, queued):
    charge.send("the connection of the thread")
    for _ in range(3):
        charge.send_many((n,) for n in range(70))
    assert proxy.accepted == 2
    assert len(queued()) == 1 + 3 * 70


def test_lists_of_several_threads_go_beside_each_other(
    near_durable, charge, queued, send_beside_each_other
):
    lists = [[charge.message(n + thread) for n in range(0, 800, 4)] for thread in range(4)]
    assert send_beside_each_other(near_durable, lists) == [NUMBER] * 4
    assert sorted(numbers(queued())) == list(range(800))


# As if one by one


@pytest.mark.parametrize("delay", [None, 3_600_000])
def test_rabbitmq_gets_the_same_message_from_a_list_as_from_a_send(
    use, rabbitmq_url, sqlite_db, make_durable, charge, queued, delay
):
    broker = use(RabbitmqBroker(url=rabbitmq_url, confirm_delivery=True, max_priority=7))
    durable = make_durable(broker, sqlite_db)
    options = {"args": (42,), "broker_priority": 3}
    charge.send_with_options(**options, delay=delay)
    durable.send_many([charge.message_with_options(**options)], delay=delay)
    [alone, listed] = queued("default" if delay is None else "default.DQ")
    assert vars(alone[0]) == vars(listed[0])
    varies = {"message_id", "message_timestamp", "options"}
    for name in alone[1].asdict().keys() - varies:
        assert getattr(alone[1], name) == getattr(listed[1], name), name
    assert alone[1].options.keys() == listed[1].options.keys()
    if delay is not None:
        assert 0 <= listed[1].options["eta"] - alone[1].options["eta"] < 10_000


class Notes(dramatiq.Middleware):
    """Notes what is enqueued, and changes it on its way."""

    def __init__(self):
        self.before, self.after = [], []

    def before_enqueue(self, broker, message, delay):
        message.options["seen"] = len(self.before)
        self.before.append((message.args[0], delay, self.after.copy()))

    def after_enqueue(self, broker, message, delay):
        self.after.append((message.args[0], delay, message.options["seen"]))


@pytest.mark.parametrize("delay", [None, 60_000])
def test_hooks_are_called_once_for_each_message_and_in_the_order_of_the_list(
    rabbitmq_broker, near_durable, charge, queued, delay
):
    notes = Notes()
    rabbitmq_broker.add_middleware(notes)
    charge.send_many([(n,) for n in range(70)], delay=delay)
    assert notes.before == [(n, delay, []) for n in range(70)]
    assert notes.after == [(n, delay, n) for n in range(70)]
    taken = queued("default" if delay is None else "default.DQ")
    assert [message.options["seen"] for _, message in taken] == list(range(70))


@pytest.mark.failure(44)
def test_without_confirmations_there_is_nothing_to_wait_for(
    use, rabbitmq_url, sqlite_db, make_durable, charge, queued
):
    broker = use(RabbitmqBroker(url=rabbitmq_url))
    make_durable(broker, sqlite_db)
    notes = Notes()
    broker.add_middleware(notes)
    charge.send_many((n,) for n in range(3))
    assert [len(after) for _, _, after in notes.before] == [0, 1, 2]  # one by one
    assert numbers(queued()) == [0, 1, 2]


class Counting(RabbitmqBroker):
    """A subclass with an ``enqueue`` of its own."""

    enqueued = 0

    def enqueue(self, message, *, delay=None):
        self.enqueued += 1
        return super().enqueue(message, delay=delay)


def test_a_broker_that_enqueues_in_a_way_of_its_own_does_so(
    use, rabbitmq_url, sqlite_db, make_durable, charge, queued
):
    broker = use(Counting(url=rabbitmq_url, confirm_delivery=True))
    make_durable(broker, sqlite_db)
    charge.send_many((n,) for n in range(3))
    assert broker.enqueued == 3
    assert numbers(queued()) == [0, 1, 2]


# What is not confirmed


@pytest.mark.failure(3)
def test_of_a_list_that_rabbitmq_takes_a_part_of_the_rest_is_sent_by_the_monitor(
    rabbitmq_broker, near_durable, charge, replace_the_queue, queued, audits, recover, ran, clock
):
    notes = Notes()
    rabbitmq_broker.add_middleware(notes)
    before = charge.send("before")
    replace_the_queue(max_length=10, overflow="reject-publish")
    charge.send_many((n,) for n in range(100))
    taken = queued()
    ids = {message.message_id for _, message in taken}
    assert 10 <= len(ids) == len(taken) < 100
    counts = {audit.message_id: audit.enqueue_count for audit in audits(near_durable)}
    assert {each for each in counts if counts[each] == 1} == {before.message_id, *ids}
    assert list(counts.values()).count(0) == 100 - len(ids)
    assert sorted(near_durable.failed) == sorted(set(range(100)) - set(numbers(taken)))
    assert [number for number, _, _ in notes.after] == ["before", *sorted(numbers(taken))]
    replace_the_queue()
    recover()
    assert sorted(ran) == sorted(near_durable.failed)
    clock.move(minutes=11)
    recover()
    assert sorted(ran, key=str) == sorted(["before", *range(100)], key=str)


@pytest.mark.failure(3)
def test_a_queue_that_is_gone_is_made_again_and_others_get_no_message_twice(
    rabbitmq_broker, near_durable, ran, queued
):
    one, two = (
        durable_actor(ran.append, actor_name=each, queue_name=each) for each in ("one", "two")
    )

    def delete(written, sent):
        if sent == 128:
            rabbitmq_broker.channel.queue_delete("two")

    messages = [(one, two)[n % 2].message(n) for n in range(NUMBER)]
    near_durable.send_many(messages, progress=delete)
    assert numbers(queued("one")) == list(range(0, NUMBER, 2))
    assert numbers(queued("two")) == list(range(129, NUMBER, 2))
    assert not hasattr(near_durable, "failed")


@pytest.mark.failure(3)
def test_a_connection_that_was_lost_between_two_lists_is_made_again(
    proxy, far_durable, charge, queued
):
    charge.send_many((n,) for n in range(70))
    proxy.cut()
    charge.send_many((n,) for n in range(70, 140))
    assert numbers(queued()) == list(range(140))
    assert not hasattr(far_durable, "failed")


@pytest.mark.failure(49)
def test_no_log_shows_the_arguments_of_a_list_that_rabbitmq_returns_or_rejects(
    near_durable, charge, replace_the_queue, queued, caplog
):
    caplog.set_level(logging.DEBUG)
    charge.send("before")
    replace_the_queue()
    charge.send_many([("secret",)] * 3)
    assert len(queued()) == 3
    replace_the_queue(max_length=0, overflow="reject-publish")
    charge.send_many([("secret",)] * 3)
    assert near_durable.failed == ["secret"] * 3
    assert "secret" not in caplog.text


# Processes and connections


def test_a_connection_that_had_nothing_to_do_for_long_is_closed_and_another_made(
    proxy, far_durable, charge, queued, monkeypatch, eventually
):
    monkeypatch.setattr(publisher, "KEPT", 0.0)
    charge.send("the connection of the thread")
    for _ in range(3):
        charge.send_many((n,) for n in range(60))
    assert proxy.accepted == 4
    eventually(lambda: proxy.connections == 2)
    assert len(queued()) == 1 + 3 * 60


def test_its_connections_are_closed_with_the_broker(
    far_broker, proxy, far_durable, charge, eventually
):
    charge.send_many([(1,), (2,)])
    far_broker.close()
    eventually(lambda: proxy.connections == 0)


FORK = """
    import os

    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = RabbitmqBroker(url=os.environ["BROKER_URL"], confirm_delivery=True)
    durable = DurableMiddleware()
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()


    @durable_actor
    def charge(order_id):
        pass


    def send(text):
        for _ in range(3):
            charge.send_many([(text,)])


    send("before")
    pid = os.fork()
    if pid == 0:
        send("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    send("after")
    assert {audit.enqueue_count for audit in durable.store.list_audits()} == {1}
"""


@pytest.mark.failure(10)
def test_parent_and_child_have_connections_of_their_own(app, rabbitmq_url, sqlite_url, queued):
    program = app("", BROKER_URL=rabbitmq_url, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url)
    done = program.python(FORK)
    assert done.returncode == 0, done.stderr
    assert sorted(numbers(queued())) == sorted(["before", "child", "after"] * 3)
