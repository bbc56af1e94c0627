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


# Progress


@pytest.fixture
def counted(db):
    """``counted()``: how many audits the table has."""
    return lambda: db.execute_sql("SELECT COUNT(*) FROM durable_audits").fetchone()[0]


def test_progress_may_read_audits(stub_broker, db_durable, charge, counted, waiting):
    def look(written, sent):
        db_durable.store.list_audits()

    assert charge.send_many(((n,) for n in range(NUMBER)), progress=look) == NUMBER
    assert counted() == waiting(stub_broker) == NUMBER


@pytest.fixture
def reported():
    return []


@pytest.fixture
def report(db_durable, reported):
    return durable_actor(lambda *numbers: reported.append(numbers), actor_name="report")


# On SQLite it would wait for the transaction that it is called in.
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_progress_may_send_messages(report, reported, charge, counted, ran, work):
    assert charge.send_many(((n,) for n in range(NUMBER)), progress=report.send) == NUMBER
    work()
    assert ran == list(range(NUMBER))
    assert (NUMBER, NUMBER) in reported
    assert counted() == NUMBER + len(reported)


def test_progress_in_a_transaction_may_send_messages_which_are_part_of_it(
    db, report, reported, charge, counted, ran, work
):
    with db.atomic():
        charge.send_many(((n,) for n in range(NUMBER)), progress=report.send)
    work()
    assert ran == list(range(NUMBER))
    assert (NUMBER, 0) in reported
    assert counted() == NUMBER + len(reported)


@pytest.mark.parametrize("number", [64, 128, NUMBER])
def test_when_progress_fails_the_list_after_a_look_at_the_audits_none_is_left(
    stub_broker, db_durable, charge, counted, waiting, number
):
    def fail(written, sent):
        db_durable.store.list_audits()
        if written >= number:
            raise Changed

    with pytest.raises((Changed, AuditWriteFailed)):
        charge.send_many(((n,) for n in range(NUMBER)), progress=fail)
    assert counted() == waiting(stub_broker) == 0


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_progress_that_raises_after_the_commit_keeps_nothing_back(
    broker, durable, charge, ran, work
):
    """Whoever got the error would believe that nothing was written, and send it all again."""

    def fail(written, sent):
        if sent:
            raise Changed

    assert charge.send_many(((n,) for n in range(NUMBER)), progress=fail) == NUMBER
    work()
    assert sorted(ran) == list(range(NUMBER))


# Iterators


def test_the_iterator_may_have_a_transaction_of_its_own(
    stub_broker, db, db_durable, charge, ran, work, waiting
):
    def arguments():
        with db.atomic():
            for n in range(NUMBER):
                yield (n,)

    charge.send_many(arguments())
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
    if becomes == "sent":
        charge.send_many([(1,), (2,)])
    elif becomes == "refused":
        with pytest.raises(TypeError):
            charge.send_many([(1,), (2,), (object(),)])
    else:
        with pytest.raises(Changed), sqlite_db.atomic():
            charge.send_many([(1,), (2,)])
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
    charge()
    inner = broker.enqueue

    def traced(message, *, delay=None):
        return inner(message, delay=delay)

    broker.enqueue = traced
    charge.send(0)
    assert charge.send_many([(1,), (2,)]) == 2
    work()
    assert ran == [0, 1, 2]


class Raising(DurableMiddleware):
    """Tells the sender what the broker did not take."""

    def enqueue_failed(self, broker, message, error):
        raise Changed


def test_an_enqueue_failed_that_raises_keeps_no_other_message_back(
    refusing_broker, sqlite_db, make_durable, charge, ran, work, monitor
):
    make_durable(refusing_broker, sqlite_db, Raising)
    refusing_broker.refuses = lambda message, delay: message.args[0] == 1
    with pytest.raises(Changed):
        charge.send_many((n,) for n in range(NUMBER))
    refusing_broker.refuses = None
    work()
    monitor.run_once()
    work()
    assert sorted(ran) == list(range(NUMBER))


# Columns


def test_columns_that_are_expressions_come_through_a_list_that_is_not_kept_in_memory(
    stub_broker, sqlite_db, make_durable, charge
):
    class RegionAudit(Audit):
        region = peewee.CharField(null=True)

        class Meta:
            database = sqlite_db
            table_name = "region_audits"

    class Regions(DurableMiddleware):
        def audit_columns(self, broker, message):
            return {"region": peewee.fn.UPPER("eu")}

    make_durable(stub_broker, sqlite_db, Regions, audit_model=RegionAudit)
    charge.send_many((str(n) + "x" * 300_000,) for n in range(60))
    cursor = sqlite_db.execute_sql("SELECT region FROM region_audits")
    assert cursor.fetchall() == [("EU",)] * 60


# Messages that were sent before, and monitors


@pytest.mark.failure(7)
def test_a_second_list_that_the_broker_refuses_leaves_when_the_first_is_due(
    refusing_broker, sqlite_db, make_durable, charge, audits, within
):
    durable = make_durable(refusing_broker, sqlite_db)
    messages = [charge.message(n) for n in range(70)]
    durable.send_many(messages)
    before = [(a.message_id, a.due_at, a.enqueue_count) for a in audits(durable)]
    refusing_broker.refuses = lambda message, delay: True
    with within(sqlite_db):
        durable.send_many(messages)
    assert [(a.message_id, a.due_at, a.enqueue_count) for a in audits(durable)] == before


def test_a_list_of_a_rolled_back_savepoint_is_no_reason_to_warn(
    broker, durable, sqlite_db, charge, caplog
):
    charge()
    caplog.clear()
    caplog.set_level(logging.INFO)
    with sqlite_db.atomic():
        with pytest.raises(Changed), sqlite_db.atomic():
            charge.send_many((n,) for n in range(70))
            raise Changed
        charge.send_many((n,) for n in range(70))
    assert [r.getMessage() for r in caplog.records if r.name.startswith("dramatiq_durable")] == []


@pytest.mark.failure(30)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_what_a_monitor_has_sent_meanwhile_the_sender_does_not_send(
    broker, durable, charge, ran, work, monitor
):
    at_once = {"job_timeout": 1, "heartbeat_interval": None, "backoff": lambda count: timedelta(0)}
    charge(**at_once)

    def watch(written, sent):
        if 0 < sent < NUMBER:
            monitor.run_once()

    assert charge.send_many(((n,) for n in range(NUMBER)), progress=watch) == NUMBER
    work()
    assert sorted(ran) == list(range(NUMBER))
