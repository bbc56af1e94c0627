"""``send_many()``: what ``send()`` promises, for a whole list in few statements and round trips."""

from datetime import timedelta

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import current_audit, durable_actor

LENGTHS = [0, 1, 63, 64, 65, 1000]


# How many


@pytest.mark.failure(11)
@pytest.mark.parametrize("number", LENGTHS)
def test_each_message_of_a_list_has_an_audit_and_is_pushed(
    redis_broker, db, make_durable, charge, waiting, number
):
    durable = make_durable(redis_broker, db)
    charge()
    messages = [charge.message(n) for n in range(number)]
    assert durable.send_many(messages) == number
    rows = db.execute_sql("SELECT message_id, state, enqueue_count FROM durable_audits").fetchall()
    assert sorted(rows) == sorted((m.message_id, "pending", 1) for m in messages)
    assert waiting(redis_broker) == number


@pytest.mark.failure(11)
@pytest.mark.parametrize("number", [63, 64, 65, 1000])
def test_jobs_sent_together_run_once_each_in_the_order_of_the_list(
    stub_broker, stub_durable, charge, ran, work, number
):
    assert charge.send_many((n,) for n in range(number)) == number
    work()
    assert ran == list(range(number))


@pytest.mark.failure(11)
def test_jobs_sent_together_run_once_on_each_broker(broker, durable, charge, ran, work, audits):
    assert charge.send_many([(n,) for n in range(130)]) == 130
    work(threads=2)
    assert sorted(ran) == list(range(130))
    finished = {(a.state, a.start_count, a.enqueue_count) for a in audits(durable)}
    assert finished == {("completed", 1, 1)}


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_messages_of_several_actors_queues_and_priorities_may_be_sent_together(
    broker, durable, ran, work, waiting, audits
):
    def declare(name, queue_name, priority):
        return durable_actor(
            lambda n: ran.append((name, n)),
            actor_name=name,
            queue_name=queue_name,
            priority=priority,
        )

    actors = [declare("a", "one", 0), declare("b", "two", 9), declare("c", "one", 5)]
    messages = [actors[n % 3].message_with_options(args=(n,), rank=n) for n in range(99)]
    assert durable.send_many(messages) == 99
    assert (waiting(broker, "one"), waiting(broker, "two")) == (66, 33)
    assert {a.message_id: (a.actor_name, a.queue_name) for a in audits(durable)} == {
        m.message_id: (m.actor_name, m.queue_name) for m in messages
    }
    work()
    assert sorted(ran) == sorted(("abc"[n % 3], n) for n in range(99))


# What it costs


@pytest.mark.failure(11)
@pytest.mark.parametrize(("number", "inserts"), [(64, 1), (65, 2), (200, 4)])
def test_a_list_costs_one_transaction_and_an_insert_for_each_64(
    db, db_durable, charge, statements, number, inserts
):
    charge.send(0)  # opens the connection
    with statements(db) as events:
        charge.send_many((n,) for n in range(number))
    words = [event.sql.split()[0].upper() for event in events]
    assert [word for word in words if word not in {"BEGIN", "COMMIT"}] == ["INSERT"] * inserts


class CountingConnection(redis.Connection):
    """Counts what a client sends before it waits for an answer."""

    turns = 0

    def send_packed_command(self, *args, **kwargs):
        type(self).turns += 1
        return super().send_packed_command(*args, **kwargs)


@pytest.fixture
def counting():
    yield CountingConnection
    CountingConnection.turns = 0


@pytest.mark.failure(11)
@pytest.mark.parametrize(("number", "turns"), [(64, 2), (65, 4), (200, 8)])
def test_on_redis_a_list_costs_two_round_trips_for_each_64(
    use, redis_url, sqlite_db, make_durable, charge, waiting, counting, number, turns
):
    broker = use(RedisBroker(url=redis_url))
    broker.client.connection_pool.connection_class = counting
    make_durable(broker, sqlite_db)
    charge.send(0)  # loads the script of the broker
    before, counting.turns = waiting(broker), 0
    charge.send_many((n,) for n in range(number))
    assert counting.turns == turns
    assert waiting(broker) == before + number


def test_progress_rises_to_all_written_and_all_sent(redis_durable, charge):
    said = []
    charge.send_many([(n,) for n in range(200)], progress=lambda *numbers: said.append(numbers))
    assert said == sorted(said)
    assert all(0 <= sent <= written <= 200 for written, sent in said)
    assert said[-1] == (200, 200)
    assert len(said) >= 6  # every few of them
    assert [written for written, sent in said if 0 < sent < written] != []


# What is sent


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_hooks_of_other_middleware_are_called_for_each_message(broker, durable, charge, work):
    class Notes(dramatiq.Middleware):
        def __init__(self):
            self.before, self.after = [], []

        def before_enqueue(self, broker, message, delay):
            self.before.append((message.message_id, delay))

        def after_enqueue(self, broker, message, delay):
            self.after.append((message.message_id, delay))

    notes = Notes()
    broker.add_middleware(notes)
    messages = [charge.message(n) for n in range(70)]
    durable.send_many(messages)
    expected = sorted((message.message_id, None) for message in messages)
    assert sorted(notes.before) == sorted(notes.after) == expected


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_delayed_jobs_run_when_they_are_meant_to_start(
    broker, durable, charge, ran, work, monitor, clock, audits, waiting, eventually
):
    charge.send_many([(n,) for n in range(70)], delay=3_600_000)
    eventually(lambda: waiting(broker, "default.DQ") == 70)
    assert waiting(broker) == 0
    for audit in audits(durable):
        assert audit.scheduled_at == audit.created_at + timedelta(hours=1)
        assert audit.due_at == audit.scheduled_at + timedelta(minutes=11)
        assert audit.enqueue_count == 1

    broker.flush_all()
    clock.move(hours=1, minutes=10)
    monitor.run_once()
    work()
    assert ran == []
    clock.move(minutes=1)
    monitor.run_once()
    work()
    assert sorted(ran) == list(range(70))


def test_a_short_delay_is_over_after_it(redis_durable, charge, ran, work):
    charge.send_many([(n,) for n in range(5)], delay=50)
    work()
    assert sorted(ran) == list(range(5))


# From inside an actor


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_an_actor_sends_many_as_it_sends_one(broker, durable, charge, ran, work, audits):
    @durable_actor
    def fan_out():
        charge.send_many([(n,) for n in range(70)])
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            charge.send_many([(n,) for n in range(70, 140)])

    fan_out.send()
    work()
    assert sorted(ran) == list(range(140))
    assert {audit.state for audit in audits(durable)} == {"completed"}
    assert len(audits(durable)) == 141
