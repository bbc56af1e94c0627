"""A ``unique_key`` in a transaction of the audits' database: it is held, and given back, as that ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import (
    Audit,
    AuditWriteFailed,
    DurableMiddleware,
    current_audit,
    durable_actor,
)


class Changed(Exception):
    """What makes a transaction roll back."""


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def once(durable, charge):
    """``once(order_id)``: the message_id that a send with the test's key returns."""

    def send(order_id):
        return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    return send


@pytest.fixture
def elsewhere():
    """``elsewhere(fn, *args)``: its Future, in a thread with connections of its own."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def test_it_is_held_after_the_commit_and_before_it_for_the_transaction_itself(
    stub_broker, db, once, ran, waiting, work
):
    with db.atomic():
        one = once(1)
        assert once(2) == one
        assert waiting(stub_broker) == 0
    assert waiting(stub_broker) == 1
    assert once(3) == one
    work()
    assert ran == [1]


@pytest.mark.failure(5)
def test_after_a_rollback_it_is_free(db, once, ran, finish, durable, audits):
    with pytest.raises(Changed), db.atomic():
        one = once(1)
        raise Changed
    with db.atomic():
        with pytest.raises(Changed), db.atomic():
            assert once(2) != one
            raise Changed
        three = once(3)
    assert [audit.message_id for audit in audits(durable)] == [three]
    finish()
    assert ran == [3]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_while_it_is_held_by_another_nothing_is_sent_whatever_becomes_of_the_transaction(
    db, once, ran, finish, end
):
    one = once(1)
    with db.atomic() as transaction:
        assert once(2) == one
        if end == "rollback":
            transaction.rollback()
    assert once(3) == one
    finish()
    assert ran == [1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_it_is_taken_from_a_finished_job_if_the_transaction_is_committed(
    db, charge, once, ran, work, audits, durable, end
):
    one = once(1)
    work()
    with db.atomic() as transaction:
        two = once(2)
        assert two != one
        assert once(3) == two
        if end == "rollback":
            transaction.rollback()
    keys = {audit.message_id: audit.unique_key is not None for audit in audits(durable)}
    assert keys == ({one: False, two: True} if end == "commit" else {one: True})
    work()
    assert ran == ([1, 2] if end == "commit" else [1])


class Limited(Audit):
    tenant = peewee.IntegerField(null=True, constraints=[peewee.Check("tenant < 10")])


class TenantMiddleware(DurableMiddleware):
    def audit_columns(self, broker, message):
        return {"tenant": message.args[0]}


def test_it_is_not_taken_from_a_finished_job_for_an_audit_that_the_database_refuses(
    stub_broker, db, make_durable, charge, ran, work
):
    model = type("Model", (Limited,), {"Meta": type("Meta", (), {"database": db})})
    durable = make_durable(stub_broker, db, TenantMiddleware, audit_model=model)
    one = charge.send_with_options(args=(1,), unique_key="k")
    work()
    with db.atomic():
        with pytest.raises(AuditWriteFailed):
            charge.send_with_options(args=(11,), unique_key="k")
        charge.send(2)
    assert durable.store.get(one.message_id).unique_key is not None
    work()
    assert ran == [1, 2]


@pytest.mark.parametrize("before", ["unused", "finished"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_waits_for_another_one_with_the_same_key(
    db, once, ran, work, elsewhere, eventually, before, end
):
    if before == "finished":
        once(0)
        work()
        del ran[:]
    begun = threading.Event()

    def other():
        with db.atomic():
            begun.set()
            two = once(2)
        db.close()
        return two

    with db.atomic() as transaction:
        one = once(1)
        sent = elsewhere(other)
        assert begun.wait(10)
        if end == "rollback":
            transaction.rollback()
    two = sent.result(30)
    assert (two == one) == (end == "commit")
    work()
    assert ran == ([1] if end == "commit" else [2])


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_who_has_waited_for_it_sees_who_has_it_since(
    database_url, db, durable, once, elsewhere, eventually
):
    begun = threading.Event()
    waiting = "SELECT 1 FROM information_schema.processlist WHERE LEFT(info, 6) = 'INSERT'"

    def other():
        with db.atomic():
            # What others do after that is not seen.
            list(durable.store.audit.select())
            begun.set()
            two = once(2)
        db.close()
        return two

    console = connect(database_url)
    with console.connection_context(), db.atomic():
        one = once(1)
        sent = elsewhere(other)
        assert begun.wait(10)
        eventually(lambda: console.execute_sql(waiting).fetchall())
    assert sent.result(30) == one


def test_of_transactions_that_send_it_at_once_one_does(db, once, ran, work, elsewhere):
    together = threading.Barrier(4)

    def transaction(number):
        together.wait(30)
        with db.atomic():
            message_id = once(number)
        db.close()
        return message_id

    for _ in range(10):
        sent = [elsewhere(transaction, number) for number in range(together.parties)]
        assert len({each.result(60) for each in sent}) == 1
        work()
    assert len(ran) == 10


@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_a_send_without_a_transaction_waits_for_one_and_gives_up_with_an_error(
    db, once, ran, work, elsewhere
):
    with db.atomic():
        one = once(1)
        failed = elsewhere(once, 2)
        with pytest.raises(AuditWriteFailed):
            failed.result(60)
    assert elsewhere(once, 3).result(30) == one
    work()
    assert ran == [1]


@pytest.fixture
def db_of_a_snapshot(database_url):
    """Transactions on it see what was committed when they began."""
    if database_url.startswith("mysql"):
        options = {"init_command": "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"}
    else:
        options = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    made = connect(database_url, **options)
    yield made
    if not made.is_closed():
        made.close()


@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
@pytest.mark.parametrize("since", ["sent", "finished", "sent anew"])
def test_what_others_have_done_since_a_transaction_began_is_seen_or_an_error(
    stub_broker, db_of_a_snapshot, make_durable, charge, ran, work, elsewhere, since
):
    db = db_of_a_snapshot
    durable = make_durable(stub_broker, db)

    def once(order_id):
        return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    there = None if since == "sent" else once(0)
    got: list[str] = []
    with db.atomic():
        list(durable.store.audit.select())
        if since != "sent":
            elsewhere(work).result(30)
        if since != "finished":
            there = elsewhere(once, 1).result(30)
        got = []
        with suppress(AuditWriteFailed):
            got.append(once(2))
        charge.send("after it")
    elsewhere(db.close).result(10)
    if since == "finished":
        assert there not in got
    else:
        assert set(got) <= {there}
    # PostgreSQL refuses what it does not see.
    assert bool(got) == (type(db) is peewee.MySQLDatabase)
    work()
    assert "after it" in ran


@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
@pytest.mark.parametrize("holder", ["open", "finished"])
def test_a_long_transaction_holds_up_neither_the_job_nor_messages_without_a_key(
    db, charge, once, ran, work, elsewhere, durable, holder
):
    once(0)
    if holder == "finished":
        work()
    with db.atomic():
        once(1)
        elsewhere(charge.send, "without").result(10)
        elsewhere(work).result(10)
        assert ran == [0, "without"]
    assert durable.flush()
    work()
    assert ran == ([0, "without", 1] if holder == "finished" else [0, "without"])


def test_a_job_that_completes_itself_in_a_transaction_may_send_its_successor_there(
    durable, db, ran, work
):
    @durable_actor
    def step(number):
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            ran.append(number)
            if number < 3:
                sent = step.send_with_options(args=(number + 1,), unique_key="k")
                assert sent.message_id != audit.message_id

    step.send_with_options(args=(1,), unique_key="k")
    work()
    assert ran == [1, 2, 3]
