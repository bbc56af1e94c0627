"""A send inside a transaction of the audits' database is part of it."""

import logging
import threading
from datetime import timedelta

import dramatiq
import pytest
from playhouse.db_url import connect

from dramatiq_durable import AuditWriteFailed, durable_actor
from tests.support.limits import with_limit


class Changed(Exception):
    """What makes a transaction roll back."""


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def charge(durable, charge):
    return charge()


@pytest.mark.parametrize("begin", ["atomic", "transaction"])
def test_a_message_is_pushed_after_the_commit(
    stub_broker, durable, charge, db, begin, ran, waiting, work, audits
):
    with getattr(db, begin)():
        charge.send(1)
        charge.send(2)
        assert waiting(stub_broker) == 0
        assert audits(durable) == []  # others do not see them yet
    assert waiting(stub_broker) == 2
    work()
    assert ran == [1, 2]


def test_after_its_push_an_audit_is_due_as_that_of_any_other_send(charge, db, audit_of):
    with db.atomic():
        message = charge.send(1)
    audit = audit_of(message)
    late = audit.due_at - audit.created_at - timedelta(minutes=11)
    assert timedelta(0) <= late < timedelta(seconds=10)
    assert audit.enqueue_count == 1


@pytest.mark.failure(5)
def test_a_rolled_back_send_never_runs(stub_broker, durable, charge, db, ran, finish, audits):
    with pytest.raises(Changed), db.atomic():
        charge.send(1)
        raise Changed
    assert audits(durable) == []
    finish()
    assert ran == []


@pytest.mark.failure(5)
def test_a_send_rolled_back_by_hand_never_runs(charge, db, ran, finish):
    with db.atomic() as transaction:
        charge.send(1)
        transaction.rollback()
        charge.send(2)
    finish()
    assert ran == [2]


@pytest.mark.failure(5)
def test_a_send_in_a_rolled_back_savepoint_never_runs_and_those_around_it_do(
    charge, db, ran, finish
):
    with db.atomic():
        charge.send("before")
        with pytest.raises(Changed), db.atomic():
            charge.send("inside")
            raise Changed
        charge.send("after")
    finish()
    assert sorted(ran) == ["after", "before"]


@pytest.mark.failure(5)
def test_a_send_in_a_savepoint_waits_for_the_outermost_commit(
    stub_broker, charge, db, ran, waiting, finish
):
    with db.atomic():
        with db.atomic(), db.atomic():
            charge.send(1)
        assert waiting(stub_broker) == 0
    assert waiting(stub_broker) == 1
    finish()
    assert ran == [1]


@pytest.mark.failure(5)
def test_a_send_in_a_savepoint_never_runs_when_the_outer_transaction_is_rolled_back(
    charge, db, ran, finish
):
    with pytest.raises(Changed), db.atomic():
        with db.atomic():
            charge.send(1)
        raise Changed
    finish()
    assert ran == []


@pytest.mark.failure(5)
def test_what_the_transaction_before_rolled_back_does_not_follow_its_connection(
    charge, db, ran, finish
):
    with pytest.raises(Changed), db.atomic():
        charge.send("rolled back")
        raise Changed
    with db.atomic():
        charge.send("committed")
    charge.send("alone")
    finish()
    assert sorted(ran) == ["alone", "committed"]


@pytest.mark.failure(5)
@pytest.mark.failure(7)
def test_a_message_enqueued_twice_in_a_transaction_has_one_audit_and_one_run(
    stub_broker, durable, charge, db, ran, finish, audits
):
    message = charge.message(1)
    with db.atomic():
        stub_broker.enqueue(message)
        stub_broker.enqueue(message)
    assert len(audits(durable)) == 1
    finish()
    assert ran == [1]


@pytest.mark.failure(7)
@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_a_message_that_another_has_enqueued_meanwhile_is_no_error(
    stub_broker, durable, charge, db, ran, work
):
    messages = [charge.message(1), charge.message(2)]
    with db.atomic():
        # What others do after that is not seen.
        list(durable.store.audit.select())
        for message in messages:
            sender = threading.Thread(target=stub_broker.enqueue, args=(message,))
            sender.start()
            sender.join()
        stub_broker.enqueue(messages[0])
        durable.send_many(messages)
    work()
    assert ran == [1, 2]


def test_a_refused_send_leaves_the_transaction_as_it_was(
    stub_broker, durable, charge, db, ran, audits, work
):
    with db.atomic():
        charge.send(1)
        with pytest.raises(TypeError):
            charge.send(object())
        charge.send(2)
    assert len(audits(durable)) == 2
    work()
    assert ran == [1, 2]


def test_after_an_audit_that_the_database_refuses_the_transaction_goes_on(
    stub_broker, db, ran, work
):
    durable = with_limit(db)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    charge = durable_actor(ran.append)
    with db.atomic():
        charge.send(1)
        with pytest.raises(AuditWriteFailed):
            charge.send(11)
        charge.send(2)
    work()
    assert ran == [1, 2]


def test_a_delayed_send_is_delayed_from_the_moment_it_was_sent(
    stub_broker, charge, db, waiting, audit_of
):
    with db.atomic():
        message = charge.send_with_options(args=(1,), delay=timedelta(hours=1))
        assert waiting(stub_broker, "default.DQ") == 0
    assert waiting(stub_broker, "default.DQ") == 1
    audit = audit_of(message)
    assert audit.scheduled_at == audit.created_at + timedelta(hours=1)
    due = audit.due_at - audit.scheduled_at
    assert timedelta(minutes=11) <= due < timedelta(minutes=11, seconds=10)


def test_a_send_of_another_thread_is_not_part_of_it(stub_broker, charge, db, ran, waiting, finish):
    with pytest.raises(Changed), db.atomic():
        thread = threading.Thread(target=charge.send, args=("another thread",))
        thread.start()
        thread.join()
        assert waiting(stub_broker) == 1
        raise Changed
    finish()
    assert ran == ["another thread"]


def test_a_transaction_of_another_database_object_does_not_hold_a_send_back(
    stub_broker, charge, database_url, ran, waiting, finish
):
    other = connect(database_url)
    with pytest.raises(Changed), other.atomic():
        charge.send(1)
        assert waiting(stub_broker) == 1
        raise Changed
    other.close()
    finish()
    assert ran == [1]


def test_in_manual_commit_a_send_is_on_its_own(stub_broker, charge, db, ran, waiting, finish):
    db.connect(reuse_if_open=True)  # peewee forgets the block when it connects inside it
    with db.manual_commit():
        db.begin()
        charge.send(1)
        assert waiting(stub_broker) == 1
        db.rollback()
    finish()
    assert ran == [1]


def test_an_actor_that_is_not_durable_is_pushed_at_once(stub_broker, durable, db, waiting):
    @dramatiq.actor
    def greet():
        pass

    with pytest.raises(Changed), db.atomic():
        greet.send()
        assert waiting(stub_broker) == 1
        raise Changed


def test_a_send_leaves_the_applications_connection_as_it_found_it(stub_broker, charge, db):
    if not db.is_closed():
        db.close()
    charge.send(1)
    assert db.is_closed()
    db.connect()
    charge.send(2)
    assert not db.is_closed()
    assert not db.in_transaction()


def test_callbacks_of_the_application_run_beside_ours(charge, db, ran, work):
    called = []
    with db.atomic():
        db.after_commit(lambda: called.append("first"))
        charge.send(1)
        db.after_commit(lambda: called.append("second"))
    assert called == ["first", "second"]
    work()
    assert ran == [1]


def test_an_in_memory_database_sends_at_once(stub_broker, make_durable, ran, waiting, work):
    durable = make_durable(stub_broker, "sqlite:///:memory:")
    charge = durable_actor(ran.append, actor_name="charge")
    with durable.store.database.atomic():
        message = charge.send(1)
        assert waiting(stub_broker) == 1
    work()
    assert ran == [1]
    assert durable.store.get(message.message_id).state == "completed"


def test_the_transaction_of_a_send_says_nothing_when_all_is_well(charge, db, caplog):
    caplog.set_level(logging.INFO)
    with db.atomic():
        charge.send(1)
    assert [r for r in caplog.records if r.name.startswith("dramatiq_durable")] == []
