"""The broker is there and does not take the message."""

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import durable_actor


@pytest.mark.failure(3)
def test_a_redis_without_memory_costs_no_job(
    own_redis, use, sqlite_db, make_durable, charge, ran, work, monitor, audit_of, waiting
):
    server = own_redis("--maxmemory-policy", "noeviction")
    broker = use(RedisBroker(url=server.url))
    make_durable(broker, sqlite_db)
    broker.client.config_set("maxmemory", 1)
    message = charge.send(42)
    assert waiting(broker) == 0
    assert audit_of(message).enqueue_count == 0

    broker.client.config_set("maxmemory", 0)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("completed", 1)


def _replace_the_queue(broker, arguments):
    """A queue that takes nothing is where the broker thinks its own is."""
    channel = broker.connection.channel()
    channel.queue_delete("default")
    channel.queue_declare("default", durable=True, arguments=arguments)
    channel.close()


@pytest.mark.failure(3)
def test_a_message_that_rabbitmq_rejects_is_sent_by_the_monitor(
    rabbitmq_broker, sqlite_db, make_durable, charge, ran, work, monitor, audit_of
):
    make_durable(rabbitmq_broker, sqlite_db)
    charge.send(1)
    work()
    _replace_the_queue(rabbitmq_broker, {"x-max-length": 0, "x-overflow": "reject-publish"})
    message = charge.send(42)
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("pending", 0)

    rabbitmq_broker.channel.queue_delete("default")
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [1, 42]
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("completed", 1)


@pytest.mark.failure(3)
def test_a_queue_declared_otherwise_by_somebody_else_costs_no_job(
    rabbitmq_broker, sqlite_db, make_durable, charge, ran, work, monitor, audit_of
):
    make_durable(rabbitmq_broker, sqlite_db)
    # Dramatiq's declaration fails then, before any hook of a middleware.
    _replace_the_queue(rabbitmq_broker, {"x-max-length": 5})
    message = charge.send(42)
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("pending", 0)

    rabbitmq_broker.channel.queue_delete("default")
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]


@pytest.mark.failure(3)
def test_with_confirm_delivery_a_deleted_queue_is_made_again(
    rabbitmq_broker, sqlite_db, make_durable, charge, ran, work, audits
):
    durable = make_durable(rabbitmq_broker, sqlite_db)
    charge.send(1)
    work()
    rabbitmq_broker.channel.queue_delete("default")
    charge.send(42)
    assert len(audits(durable)) == 2
    work()
    assert ran == [1, 42]


@pytest.mark.failure(3)
@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_without_confirm_delivery_a_dropped_message_runs_after_timeout_and_backoff(
    broker, durable, charge, ran, work, monitor, clock, audit_of
):
    charge.send(1)
    work()
    broker.channel.queue_delete("default")
    message = charge.send(42)  # RabbitMQ drops it and says nothing
    assert audit_of(message).enqueue_count == 1

    broker.queues_pending.add("default")  # as after a restart of the worker
    clock.move(minutes=10, seconds=59)
    monitor.run_once()
    work()
    assert ran == [1]

    clock.move(seconds=1)
    monitor.run_once()
    work()
    assert ran == [1, 42]


@pytest.mark.failure(3)
def test_whatever_error_a_broker_has_a_send_returns(
    refusing_broker, sqlite_db, make_durable, charge, ran, work, monitor, audit_of
):
    make_durable(refusing_broker, sqlite_db)

    def refuse(message, delay):
        raise OSError("no route to host")

    refusing_broker.refuses = refuse
    message = charge.send(42)
    assert audit_of(message).state == "pending"

    refusing_broker.refuses = None
    monitor.run_once()
    work()
    assert ran == [42]


@pytest.mark.failure(3)
def test_an_actor_that_is_not_durable_gets_the_brokers_error(
    refusing_broker, sqlite_db, make_durable, audits
):
    durable = make_durable(refusing_broker, sqlite_db)

    @durable_actor
    def charge():
        pass

    @dramatiq.actor
    def greet():
        pass

    refusing_broker.refuses = lambda message, delay: True
    with pytest.raises(dramatiq.errors.ConnectionClosed):
        greet.send()
    assert audits(durable) == []
