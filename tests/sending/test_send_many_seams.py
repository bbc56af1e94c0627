"""``send_many()`` beside hooks, callbacks, iterators and monitors that have their own way."""

import logging
from datetime import timedelta

import dramatiq
import peewee
import pytest

from dramatiq_durable import Audit, AuditWriteFailed, DurableMiddleware, durable_actor

NUMBER = 200


class Changed(Exception):
    """What a callback raises, or makes a transaction roll back."""


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(ran):
    """Declared when a test first asks, after its middleware."""
    return lambda **options: durable_actor(ran.append, actor_name="charge", **options)


# Progress


@pytest.fixture
def counted(db):
    """``counted()``: how many audits the table has."""
    return lambda: db.execute_sql("SELECT COUNT(*) FROM durable_audits").fetchone()[0]


def test_progress_may_read_audits(stub_broker, db, make_durable, charge, counted, waiting):
    durable = make_durable(stub_broker, db)

    def look(written, sent):
        durable.store.list_audits()

    assert charge().send_many(((n,) for n in range(NUMBER)), progress=look) == NUMBER
    assert counted() == waiting(stub_broker) == NUMBER


# On SQLite it would wait for the transaction that it is called in.
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_progress_may_send_messages(stub_broker, db, make_durable, charge, counted, ran, work):
    make_durable(stub_broker, db)
    reported = []
    report = durable_actor(lambda *numbers: reported.append(numbers), actor_name="report")
    actor = charge()
    assert actor.send_many(((n,) for n in range(NUMBER)), progress=report.send) == NUMBER
    work()
    assert ran == list(range(NUMBER))
    assert (NUMBER, NUMBER) in reported
    assert counted() == NUMBER + len(reported)


def test_progress_in_a_transaction_may_send_messages_which_are_part_of_it(
    stub_broker, db, make_durable, charge, counted, ran, work
):
    make_durable(stub_broker, db)
    reported = []
    report = durable_actor(lambda *numbers: reported.append(numbers), actor_name="report")
    actor = charge()
    with db.atomic():
        actor.send_many(((n,) for n in range(NUMBER)), progress=report.send)
    work()
    assert ran == list(range(NUMBER))
    assert (NUMBER, 0) in reported
    assert counted() == NUMBER + len(reported)


@pytest.mark.parametrize("number", [64, 128, NUMBER])
def test_when_progress_fails_the_list_after_a_look_at_the_audits_none_is_left(
    stub_broker, db, make_durable, charge, counted, waiting, number
):
    durable = make_durable(stub_broker, db)

    def fail(written, sent):
        durable.store.list_audits()
        if written >= number:
            raise Changed

    with pytest.raises((Changed, AuditWriteFailed)):
        charge().send_many(((n,) for n in range(NUMBER)), progress=fail)
    assert counted() == waiting(stub_broker) == 0


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_progress_that_raises_after_the_commit_keeps_nothing_back(
    broker, durable, charge, ran, work
):
    """Whoever got the error would believe that nothing was written, and send it all again."""

    def fail(written, sent):
        if sent:
            raise Changed

    assert charge().send_many(((n,) for n in range(NUMBER)), progress=fail) == NUMBER
    work()
    assert sorted(ran) == list(range(NUMBER))


# Iterators


def test_the_iterator_may_have_a_transaction_of_its_own(
    stub_broker, db, make_durable, charge, ran, work, waiting
):
    make_durable(stub_broker, db)

    def arguments():
        with db.atomic():
            for n in range(NUMBER):
                yield (n,)

    charge().send_many(arguments())
    assert waiting(stub_broker) == NUMBER
    work()
    assert ran == list(range(NUMBER))


# Hooks


class Telling(dramatiq.Middleware):
    """Sends a message about each to ``charge`` that is enqueued."""

    def __init__(self, tell):
        self.tell = tell
        self.sent = []

    def before_enqueue(self, broker, message, delay):
        if message.actor_name == "charge":
            self.sent.append(message.args[0])
            self.tell(message.args[0])


@pytest.mark.parametrize("kind", ["plain", "durable", "many"])
@pytest.mark.parametrize("becomes", ["sent", "refused", "rolled back"])
@pytest.mark.parametrize("broker", ["redis", "stub"], indirect=True)
def test_a_message_that_a_hook_sends_is_sent_whatever_becomes_of_the_list(
    broker, durable, sqlite_db, charge, ran, work, audits, kind, becomes
):
    told = []

    @dramatiq.actor
    def plain(n):
        told.append(n)

    tell = durable_actor(told.append, actor_name="tell")
    ways = {"plain": plain.send, "durable": tell.send, "many": lambda n: tell.send_many([(n,)])}
    telling = Telling(ways[kind])
    broker.add_middleware(telling)
    actor = charge()
    if becomes == "sent":
        actor.send_many([(1,), (2,)])
    elif becomes == "refused":
        with pytest.raises(TypeError):
            actor.send_many([(1,), (2,), (object(),)])
    else:
        with pytest.raises(Changed), sqlite_db.atomic():
            actor.send_many([(1,), (2,)])
            raise Changed
    work()
    assert sorted(ran) == ([1, 2] if becomes == "sent" else [])
    if becomes == "rolled back" and kind != "plain":
        assert told == []
    else:
        assert sorted(told) == sorted(n for n in telling.sent if n in {1, 2})
    assert {audit.state for audit in audits(durable)} <= {"completed"}


@pytest.mark.parametrize("broker", ["redis", "stub"], indirect=True)
def test_an_application_may_wrap_the_enqueue_of_its_broker(broker, durable, charge, ran, work):
    actor = charge()
    inner = broker.enqueue

    def traced(message, *, delay=None):
        return inner(message, delay=delay)

    broker.enqueue = traced
    actor.send(0)
    assert actor.send_many([(1,), (2,)]) == 2
    work()
    assert ran == [0, 1, 2]


class Raising(DurableMiddleware):
    """Tells the sender what the broker did not take."""

    def enqueue_failed(self, broker, message, error):
        raise Changed


def test_an_enqueue_failed_that_raises_keeps_no_other_message_back(
    refusing_broker, sqlite_db, charge, ran, work, monitor
):
    durable = Raising(sqlite_db)
    refusing_broker.add_middleware(durable)
    durable.create_tables()
    refusing_broker.refuses = lambda message, delay: message.args[0] == 1
    with pytest.raises(Changed):
        charge().send_many((n,) for n in range(NUMBER))
    refusing_broker.refuses = None
    work()
    monitor.run_once()
    work()
    assert sorted(ran) == list(range(NUMBER))
    durable.store.connections.close()


# Columns


def test_columns_that_are_expressions_come_through_a_list_that_is_not_kept_in_memory(
    stub_broker, sqlite_db, charge, ran, work
):
    class RegionAudit(Audit):
        region = peewee.CharField(null=True)

        class Meta:
            database = sqlite_db
            table_name = "region_audits"

    class Regions(DurableMiddleware):
        def audit_columns(self, broker, message):
            return {"region": peewee.fn.UPPER("eu")}

    durable = Regions(sqlite_db, audit_model=RegionAudit)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    charge().send_many((str(n) + "x" * 300_000,) for n in range(60))
    cursor = sqlite_db.execute_sql("SELECT region FROM region_audits")
    assert cursor.fetchall() == [("EU",)] * 60
    durable.store.connections.close()


# Messages that were sent before, and monitors


@pytest.mark.failure(7)
@pytest.mark.parametrize("where", ["alone", "in a transaction"])
def test_a_second_list_that_the_broker_refuses_leaves_when_the_first_is_due(
    refusing_broker, sqlite_db, make_durable, charge, audits, where
):
    durable = make_durable(refusing_broker, sqlite_db)
    actor = charge()
    messages = [actor.message(n) for n in range(70)]
    durable.send_many(messages)
    before = [(a.message_id, a.due_at, a.enqueue_count) for a in audits(durable)]
    refusing_broker.refuses = lambda message, delay: True
    if where == "alone":
        durable.send_many(messages)
    else:
        with sqlite_db.atomic():
            durable.send_many(messages)
    assert [(a.message_id, a.due_at, a.enqueue_count) for a in audits(durable)] == before


def test_a_list_of_a_rolled_back_savepoint_is_no_reason_to_warn(
    broker, durable, sqlite_db, charge, caplog
):
    actor = charge()
    caplog.clear()
    caplog.set_level(logging.INFO)
    with sqlite_db.atomic():
        with pytest.raises(Changed), sqlite_db.atomic():
            actor.send_many((n,) for n in range(70))
            raise Changed
        actor.send_many((n,) for n in range(70))
    assert [r.getMessage() for r in caplog.records if r.name.startswith("dramatiq_durable")] == []


@pytest.mark.failure(30)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_what_a_monitor_has_sent_meanwhile_the_sender_does_not_send(
    broker, durable, charge, ran, work, monitor
):
    at_once = {"job_timeout": 1, "heartbeat_interval": None, "backoff": lambda count: timedelta(0)}
    actor = charge(**at_once)

    def watch(written, sent):
        if 0 < sent < NUMBER:
            monitor.run_once()

    assert actor.send_many(((n,) for n in range(NUMBER)), progress=watch) == NUMBER
    work()
    assert sorted(ran) == list(range(NUMBER))
