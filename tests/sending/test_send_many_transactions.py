"""``send_many()`` inside a transaction of the audits' database is part of it."""

import threading
from datetime import timedelta

import peewee
import pytest

from dramatiq_durable import Audit, AuditWriteFailed, DurableError, DurableMiddleware, durable_actor

NUMBER = 70  # audits of two statements


class Changed(Exception):
    """What makes a transaction roll back."""


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def charge(durable, charge):
    return charge(max_payload_size=1000)


def many(name="many", number=NUMBER):
    return [(f"{name} {n}",) for n in range(number)]


def names(arguments):
    return [name for (name,) in arguments]


@pytest.mark.failure(11)
def test_messages_sent_together_are_pushed_after_the_commit(
    stub_broker, durable, charge, db, ran, waiting, work, audits
):
    with db.atomic():
        assert charge.send_many(many()) == NUMBER
        assert charge.send_many(many("more", 3)) == 3
        assert waiting(stub_broker) == 0
        assert audits(durable) == []  # others do not see them yet
    assert waiting(stub_broker) == NUMBER + 3
    work()
    assert ran == names(many() + many("more", 3))


def test_after_the_push_their_audits_are_due_as_those_of_any_other_send(
    durable, charge, db, audits
):
    with db.atomic():
        charge.send_many(many())
    for audit in audits(durable):
        late = audit.due_at - audit.created_at - timedelta(minutes=11)
        assert timedelta(0) <= late < timedelta(seconds=20)
        assert audit.enqueue_count == 1


@pytest.mark.failure(5)
def test_a_list_that_was_rolled_back_never_runs(durable, charge, db, ran, finish, audits):
    with pytest.raises(Changed), db.atomic():
        charge.send_many(many())
        raise Changed
    assert audits(durable) == []
    finish()
    assert ran == []


@pytest.mark.failure(5)
def test_a_list_in_a_rolled_back_savepoint_never_runs_and_those_around_it_do(
    charge, db, ran, finish
):
    with db.atomic():
        charge.send_many(many("before"))
        with pytest.raises(Changed), db.atomic():
            charge.send_many(many("inside"))
            raise Changed
        charge.send_many(many("after"))
    finish()
    assert sorted(ran) == sorted(names(many("before") + many("after")))


@pytest.mark.failure(5)
def test_a_list_in_a_savepoint_waits_for_the_outermost_commit(
    stub_broker, charge, db, ran, waiting, finish
):
    with db.atomic():
        with db.atomic(), db.atomic():
            charge.send_many(many())
        assert waiting(stub_broker) == 0
    assert waiting(stub_broker) == NUMBER
    finish()
    assert ran == names(many())


@pytest.mark.failure(5)
def test_a_list_in_a_savepoint_never_runs_when_the_outer_transaction_is_rolled_back(
    durable, charge, db, ran, finish, audits
):
    with pytest.raises(Changed), db.atomic():
        with db.atomic():
            charge.send_many(many())
        raise Changed
    assert audits(durable) == []
    finish()
    assert ran == []


@pytest.mark.failure(5)
@pytest.mark.parametrize("bad", [64, NUMBER - 1])
@pytest.mark.parametrize("fault", ["iterator", "argument", "size", "progress"])
def test_of_a_refused_list_nothing_is_left_in_the_transaction(
    durable, charge, db, ran, finish, audits, fault, bad
):
    def arguments():
        for n in range(NUMBER):
            if n == bad and fault == "iterator":
                raise Changed
            if n == bad and fault == "argument":
                yield (object(),)
            if n == bad and fault == "size":
                yield ("x" * 1000,)
            yield (n,)

    def progress(written, sent):
        if fault == "progress" and written >= bad:
            raise Changed

    with db.atomic():
        charge.send("before")
        with pytest.raises((Changed, TypeError, DurableError)):
            charge.send_many(arguments(), progress=progress)
        charge.send("after")
    assert len(audits(durable)) == 2
    finish()
    assert ran == ["before", "after"]


@pytest.fixture
def unique(stub_broker, db, ran, make_durable):
    """An actor whose audits have a UNIQUE column of the application, its argument."""

    class UniqueAudit(Audit):
        order_id = peewee.CharField(null=True)

        class Meta:
            database = db
            table_name = "unique_audits"

    class Unique(DurableMiddleware):
        def audit_columns(self, broker, message):
            return {"order_id": message.args[0]}

    make_durable(stub_broker, db, Unique, audit_model=UniqueAudit)
    db.execute_sql("CREATE UNIQUE INDEX one_of_each ON unique_audits (order_id)")
    return durable_actor(ran.append, actor_name="unique")


@pytest.mark.failure(5)
@pytest.mark.parametrize("bad", [64, NUMBER - 1])
@pytest.mark.parametrize("where", ["alone", "in a transaction"])
def test_of_a_list_that_the_database_refuses_nothing_is_left(unique, db, ran, finish, bad, where):
    unique.send("taken")
    arguments = many()
    arguments[bad] = ("taken",)
    if where == "alone":
        with pytest.raises(AuditWriteFailed):
            unique.send_many(arguments)
    else:
        with db.atomic():
            unique.send("before")
            with pytest.raises(AuditWriteFailed):
                unique.send_many(arguments)
            unique.send_many(many("after", 2))
    finish()
    others = [] if where == "alone" else ["before", "after 0", "after 1"]
    assert ran == ["taken", *others]
    assert db.execute_sql("SELECT COUNT(*) FROM unique_audits").fetchone()[0] == len(ran)


@pytest.mark.failure(7)
@pytest.mark.parametrize("again", ["same transaction", "next transaction", "alone"])
def test_a_list_sent_twice_has_one_audit_and_one_run_for_each(
    durable, charge, db, ran, finish, audits, again
):
    messages = [charge.message(n) for n in range(NUMBER)]
    with db.atomic():
        durable.send_many(messages)
        if again == "same transaction":
            durable.send_many(messages)
    if again == "next transaction":
        with db.atomic():
            durable.send_many(messages)
    if again == "alone":
        durable.send_many(messages)
    assert len(audits(durable)) == NUMBER
    finish()
    assert sorted(ran) == list(range(NUMBER))
    assert {audit.state for audit in audits(durable)} == {"completed"}


def test_a_delayed_list_is_delayed_from_the_moment_it_was_sent(
    stub_broker, durable, charge, db, waiting, audits
):
    with db.atomic():
        charge.send_many(many(), delay=3_600_000)
        assert waiting(stub_broker, "default.DQ") == 0
    assert waiting(stub_broker, "default.DQ") == NUMBER
    for audit in audits(durable):
        assert audit.scheduled_at == audit.created_at + timedelta(hours=1)
        due = audit.due_at - audit.scheduled_at
        assert timedelta(minutes=11) <= due < timedelta(minutes=11, seconds=20)


def test_a_list_of_another_thread_is_not_part_of_it(stub_broker, charge, db, ran, waiting, finish):
    with pytest.raises(Changed), db.atomic():
        thread = threading.Thread(target=charge.send_many, args=(many(),))
        thread.start()
        thread.join()
        assert waiting(stub_broker) == NUMBER
        raise Changed
    finish()
    assert ran == names(many())


def test_in_manual_commit_a_list_is_on_its_own(stub_broker, charge, db, ran, waiting, finish):
    db.connect(reuse_if_open=True)  # peewee forgets the block when it connects inside it
    with db.manual_commit():
        db.begin()
        charge.send_many(many())
        assert waiting(stub_broker) == NUMBER
        db.rollback()
    finish()
    assert ran == names(many())


@pytest.mark.parametrize("where", ["alone", "in a transaction"])
def test_the_list_may_come_from_a_query_of_the_application(charge, db, ran, work, where):
    class Order(peewee.Model):
        number = peewee.IntegerField()

        class Meta:
            database = db

    db.create_tables([Order])
    with db.atomic() as transaction:
        Order.insert_many([{"number": n} for n in range(1000)]).execute()
        if where == "alone":
            transaction.commit()
        query = Order.select().order_by(Order.number)
        charge.send_many((order.number,) for order in query.iterator())
    work()
    assert ran == list(range(1000))


def test_the_iterator_may_send_messages_and_lists_itself(charge, db, ran, finish, within):
    def arguments():
        yield ("one",)
        charge.send("single")
        charge.send_many(many())
        yield ("two",)

    with within(db):
        charge.send_many(arguments())
    finish()
    assert sorted(ran) == sorted(["one", "single", "two", *names(many())])
