"""A ``unique_key`` in a transaction of SQLAlchemy's, Django's, or another Peewee Database's."""

import pytest

from .conftest import Changed


@pytest.fixture
def once(charge):
    """``once(order_id)``: the message_id that a send with the test's key returns."""

    def send(order_id):
        return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    return send


@pytest.mark.failure(5)
def test_it_is_held_if_the_transaction_is_committed(
    shop, durable, once, orders, ran, waiting, finish, audits
):
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        once(0)
        raise Changed
    with shop.begin(), durable.transaction(shop.connection):
        one = once(1)
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        assert once(2) == one
    assert waiting() == 1
    with shop.begin(), durable.transaction(shop.connection):
        assert once(3) == one
        shop.execute("INSERT INTO orders (id) VALUES (2)")
    assert [audit.message_id for audit in audits(durable)] == [one]
    finish()
    assert ran == [1]
    assert orders() == [1, 2]


@pytest.mark.failure(5)
def test_it_is_taken_from_a_finished_job_if_the_transaction_is_committed(
    shop, durable, once, ran, work, audits
):
    one = once(1)
    work()
    with pytest.raises(Changed), shop.begin(), durable.transaction(shop.connection):
        assert once(2) != one
        raise Changed
    [audit] = audits(durable)
    assert audit.unique_key is not None
    with shop.begin(), durable.transaction(shop.connection):
        assert once(3) not in {one, None}
    work()
    assert ran == [1, 3]
