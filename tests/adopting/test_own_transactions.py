"""What is sent in ``durable.transaction(connection)`` is part of the transaction of that connection."""

from datetime import timedelta

import dramatiq
import pytest

from dramatiq_durable import AuditWriteFailed, durable_actor
from tests.support.limits import TenantMiddleware, with_limit

from .conftest import Changed

NUMBER = 70  # audits of two statements


@pytest.mark.failure(5)
def test_it_is_committed_with_the_rest_and_then_pushed(
    shop, durable, charge, orders, ran, waiting, work, audits
):
    with shop.begin():
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        with durable.transaction(shop.connection):
            charge.send(1)
        with durable.transaction(shop.connection):
            charge.send(2)
            assert audits(durable) == []  # others do not see them yet
        assert waiting() == 0
    assert waiting() == 2
    work()
    assert ran == [1, 2]
    assert orders() == [1]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2


@pytest.mark.failure(5)
def test_it_may_be_the_first_that_the_transaction_does(shop, durable, charge, ran, finish):
    with pytest.raises(Changed), shop.begin():
        with durable.transaction(shop.connection):
            charge.send("rolled back")
        raise Changed
    with shop.begin(), durable.transaction(shop.connection):
        charge.send("committed")
    finish()
    assert ran == ["committed"]


@pytest.mark.failure(5)
def test_when_the_transaction_is_rolled_back_it_never_runs(
    shop, durable, charge, orders, ran, waiting, finish, audits
):
    with pytest.raises(Changed), shop.begin():
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        with durable.transaction(shop.connection):
            charge.send(1)
        raise Changed
    assert waiting() == 0
    assert audits(durable) == []
    assert orders() == []
    finish()
    assert ran == []


@pytest.mark.failure(5)
def test_an_error_in_the_block_is_the_applications(shop, durable, charge, ran, finish):
    with shop.begin(), pytest.raises(Changed), durable.transaction(shop.connection):
        charge.send("before it")
        raise Changed
    finish()
    assert ran == ["before it"]


@pytest.mark.failure(5)
def test_in_a_rolled_back_savepoint_it_never_runs_and_what_is_around_it_does(
    shop, durable, charge, ran, finish
):
    with shop.begin(), durable.transaction(shop.connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send("before")
        with pytest.raises(Changed), shop.savepoint():
            charge.send("inside")
            charge.send_many([("together",)])
            raise Changed
        charge.send("after")
    finish()
    assert sorted(ran) == ["after", "before"]


@pytest.mark.failure(5)
def test_in_a_savepoint_it_waits_for_the_outermost_commit(
    shop, durable, charge, ran, waiting, work
):
    with shop.begin(), durable.transaction(shop.connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        with shop.savepoint():
            charge.send(1)
        assert waiting() == 0
    assert waiting() == 1
    work()
    assert ran == [1]


def test_after_its_push_the_audit_is_due_as_that_of_any_other_send(shop, durable, charge, audit_of):
    with shop.begin(), durable.transaction(shop.connection):
        message = charge.send(1)
    audit = audit_of(message)
    late = audit.due_at - audit.created_at - timedelta(minutes=11)
    assert timedelta(0) <= late < timedelta(seconds=20)
    assert audit.enqueued_at is not None


def test_messages_sent_together_are_part_of_it(shop, durable, charge, ran, waiting, finish, audits):
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        charge.send_many((f"rolled back {n}",) for n in range(NUMBER))
        raise Changed
    assert audits(durable) == []
    with shop.begin(), durable.transaction(shop.connection):
        assert charge.send_many((n,) for n in range(NUMBER)) == NUMBER
        dramatiq.group([charge.message("a"), charge.message("b")]).run()
        assert waiting() == 0
    assert waiting() == NUMBER + 2
    finish()
    assert ran == [*range(NUMBER), "a", "b"]


@pytest.mark.failure(7)
def test_a_message_enqueued_twice_has_one_audit_and_one_run(
    stub_broker, shop, durable, charge, ran, finish, audits
):
    message, other = charge.message(1), charge.message(2)
    stub_broker.enqueue(other)
    with shop.begin(), durable.transaction(shop.connection):
        for each in (message, message, other):
            stub_broker.enqueue(each)
        durable.send_many([message, other])
    assert len(audits(durable)) == 2
    finish()
    assert ran == [2, 1]


@pytest.mark.failure(7)
@pytest.mark.parametrize("way", ["session-pymysql", "connection-mysqldb"])
def test_a_message_that_another_has_enqueued_meanwhile_is_no_error(
    way, stub_broker, shop, durable, charge, ran, work
):
    messages = [charge.message(1), charge.message(2)]
    with shop.begin():
        # What others do after that is not seen.
        shop.execute("SELECT message_id FROM durable_audits")
        for message in messages:
            stub_broker.enqueue(message)
        with durable.transaction(shop.connection):
            stub_broker.enqueue(messages[0])
            durable.send_many(messages)
    work()
    assert ran == [1, 2]


@pytest.mark.parametrize("send", ["send", "send_many"])
def test_after_an_audit_that_is_refused_the_transaction_goes_on(
    stub_broker, shop, db, orders, ran, waiting, work, send
):
    durable = with_limit(db)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    charge = durable_actor(ran.append)

    def refused():
        if send == "send":
            charge.send(11)
        else:
            charge.send_many([(1,), (11,)])

    with shop.begin(), durable.transaction(shop.connection):
        with pytest.raises(AuditWriteFailed):
            refused()
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send(9)
    assert waiting() == 1
    work()
    assert orders() == [1]
    assert ran == [9]


class Lenient(TenantMiddleware):
    def audit_failed(self, broker, message, error):
        """It goes without its audit."""


def test_what_goes_without_its_audit_goes_with_the_commit_alone(stub_broker, shop, db, waiting):
    durable = with_limit(db, Lenient)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    charge = durable_actor(print, actor_name="charge")
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        charge.send(11)
        raise Changed
    assert waiting() == 0
    with shop.begin(), durable.transaction(shop.connection):
        charge.send(11)
    assert waiting() == 1


@pytest.mark.parametrize(
    ("way", "each"),
    [
        ("session-sqlite", ["INSERT"]),
        ("session-pymysql", ["INSERT"]),
        ("session-psycopg", ["SAVEPOINT", "INSERT", "RELEASE"]),
    ],
)
def test_a_block_costs_a_look_where_it_is_and_a_send_an_insert(
    way, shop, durable, charge, db, each
):
    with shop.begin(), durable.transaction(shop.connection):
        charge.send(1)
    events = []
    db.query_hooks.append(events.append)
    with shop.begin(), durable.transaction(shop.connection):
        charge.send(2)
        charge.send(3)
        written = [event.sql.split()[0] for event in events]
    assert written[0] in {"PRAGMA", "SELECT"}
    assert written[1:] == 2 * each


def test_arguments_are_in_no_log(shop, durable, charge, caplog):
    caplog.set_level("DEBUG")
    if hasattr(shop, "engine"):
        shop.engine.echo = "debug"
    with shop.begin(), durable.transaction(shop.connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send("an argument")
        charge.send_many([("an argument",)])
    assert "an argument" not in caplog.text
