"""An application adds columns to the table, with constraints of their own."""

import uuid
from datetime import timedelta

import peewee
import pytest

from dramatiq_durable import Audit, DurableError
from dramatiq_durable.connections import Connections
from dramatiq_durable.store import NewAudit, Store


@pytest.fixture
def orders(db):
    """A store of audits of which each order has one at most."""

    class OrderAudit(Audit):
        order_id = peewee.IntegerField(null=True)

        class Meta:
            database = db
            table_name = "order_audits"

    store = Store(OrderAudit, "tests", Connections(db))
    store.create_tables()
    with db.connection_context():
        db.execute_sql("CREATE UNIQUE INDEX one_job_an_order ON order_audits (order_id)")
    yield store
    store.connections.close()


def new(order_id):
    return NewAudit(
        message_id=str(uuid.uuid4()),
        actor_name="charge",
        queue_name="default",
        payload=b"payload",
        delay=timedelta(0),
        job_timeout=timedelta(seconds=30),
        lease=timedelta(seconds=20),
        backoff=timedelta(seconds=10),
        columns={"order_id": order_id},
    )


def test_an_audit_that_another_unique_column_refuses_is_not_taken_for_written(orders):
    first, second = new(1), new(1)
    assert orders.enqueue(first)
    with pytest.raises(DurableError, match="constraint"):
        orders.enqueue(second)
    assert orders.get(second.message_id) is None
    assert not orders.enqueue(first)
    assert orders.enqueue(new(2))


def test_in_a_transaction_too_and_that_stays_usable(orders, db):
    first, second, third = new(1), new(1), new(3)
    with db.atomic():
        assert orders.enqueue(first, transaction=db)
        with pytest.raises(DurableError, match="constraint"):
            orders.enqueue(second, transaction=db)
        assert not orders.enqueue(first, transaction=db)
        assert orders.enqueue(third, transaction=db)
    assert orders.get(first.message_id) is not None
    assert orders.get(second.message_id) is None
    assert orders.get(third.message_id) is not None
