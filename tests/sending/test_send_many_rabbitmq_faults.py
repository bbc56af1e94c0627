"""What RabbitMQ refuses of a list keeps no other message back; lists go where the broker itself connects to."""

import struct
from collections import Counter

import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from dramatiq_durable import DurableMiddleware
from dramatiq_durable.pipelining import publisher

from .conftest import Noting

SECONDS = 0.3  # that a blocked connection is put up with

TOO_LARGE = "x" * 200_000


class Keeping(DurableMiddleware):
    """Keeps the errors of what could not be enqueued."""

    def enqueue_failed(self, broker, message, error):
        self.errors = [*getattr(self, "errors", []), (message.args[0], type(error))]


# One bad message


@pytest.fixture
def seventy(charge):
    """``seventy()``: messages; AMQP has no room for the priority of the one whose argument is 40."""
    return lambda: [
        charge.message_with_options(args=(n,), broker_priority=300 if n == 40 else None)
        for n in range(70)
    ]


@pytest.mark.failure(3)
def test_a_message_that_pika_cannot_encode_keeps_no_other_back(
    rabbitmq_broker, sqlite_db, make_durable, seventy, queued
):
    durable = make_durable(rabbitmq_broker, sqlite_db, Keeping)
    durable.send_many(seventy())
    assert durable.errors == [(40, struct.error)]  # as of a send()
    assert [message.args[0] for _, message in queued()] == [n for n in range(70) if n != 40]


@pytest.mark.failure(32)
def test_a_monitor_sets_aside_what_pika_cannot_encode_and_sends_the_others_with_one_wait(
    far_broker, sqlite_db, make_durable, seventy, queued, clock, monitor
):
    proxy = far_broker.proxy
    make_durable(far_broker, sqlite_db, Noting).send_many(seventy())
    far_broker.flush_all()
    clock.move(minutes=11)
    accepted = proxy.accepted
    done = monitor.run_once()
    assert (done.recovered, done.failed, done.outage) == (69, 1, False)
    assert proxy.accepted == accepted
    assert len(queued()) == 69


@pytest.mark.failure(3)
def test_a_message_that_is_too_large_for_rabbitmq_keeps_no_other_back(
    own_rabbitmq, use, sqlite_db, make_durable, charge, finish, ran
):
    server = own_rabbitmq("max_message_size = 100000")
    broker = use(RabbitmqBroker(url=server.url, confirm_delivery=True))
    durable = make_durable(broker, sqlite_db, Noting)
    arguments = [TOO_LARGE if n in {20, 40} else n for n in range(60)]
    charge.send_many((each,) for each in arguments)
    assert durable.failed == [TOO_LARGE] * 2
    # RabbitMQ closes the channel without a word of those before it.
    assert broker.get_queue_message_counts("default")[0] <= 58 + 40 + 20
    finish()
    assert Counter(ran) == Counter(n for n in range(60) if n not in {20, 40})


# A RabbitMQ without memory


@pytest.mark.failure(3)
def test_a_rabbitmq_that_blocks_its_senders_is_waited_for_once_as_long_as_the_broker_says(
    own_rabbitmq,
    make_proxy,
    use,
    sqlite_db,
    make_durable,
    charge,
    audits,
    clock,
    monitor,
    recover,
    ran,
    monkeypatch,
):
    monkeypatch.setattr(publisher, "KEPT", 600.0)  # however long rabbitmqctl takes
    server = own_rabbitmq()
    proxy = make_proxy(server.url)
    url = f"{proxy.url}?blocked_connection_timeout={SECONDS}"
    broker = use(RabbitmqBroker(url=url, confirm_delivery=True))
    durable = make_durable(broker, sqlite_db, Noting)
    charge.send_many([("before",), ("before",)])
    server.control("set_vm_memory_high_watermark", "0.0000001")
    accepted = proxy.accepted
    charge.send_many((n,) for n in range(70))
    assert durable.failed == list(range(70))
    assert proxy.accepted == accepted
    charge.send("alone")
    assert sorted(audit.enqueue_count for audit in audits(durable)) == [0] * 71 + [1] * 2
    assert monitor.run_once().outage
    server.control("set_vm_memory_high_watermark", "0.4")
    clock.move(minutes=1)
    recover()
    assert sorted(ran, key=str) == sorted(["alone", "before", "before", *range(70)], key=str)


# Connections


@pytest.fixture(params=["rabbitmq-confirm"])
def far_broker(far_broker):
    return far_broker


def test_a_list_goes_where_the_broker_connects_to_now(
    far_broker, rabbitmq_url, sqlite_db, make_durable, charge, queued
):
    durable = make_durable(far_broker, sqlite_db, Noting)
    charge.send_many([(1,), (2,)])
    far_broker.proxy.down()
    far_broker.parameters = pika.URLParameters(rabbitmq_url)  # a password has changed, for example
    charge.send_many([(3,), (4,)])
    assert not hasattr(durable, "failed")
    assert [message.args[0] for _, message in queued()] == [1, 2, 3, 4]


def test_a_broker_that_connects_in_a_way_of_its_own_does_so(
    rabbitmq_url, use, sqlite_db, make_durable, charge, queued
):
    class Connecting(RabbitmqBroker):
        @property
        def connection(self):
            if not hasattr(self.state, "connection"):
                self.state.connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
            return self.state.connection

    broker = use(Connecting(url="amqp://nobody:none@127.0.0.1:1", confirm_delivery=True))
    durable = make_durable(broker, sqlite_db, Noting)
    charge.send_many([(1,), (2,)])
    assert not hasattr(durable, "failed")
    assert [message.args[0] for _, message in queued()] == [1, 2]
    broker.state.connection.close()
