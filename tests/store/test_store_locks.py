"""Somebody holds the row of one audit locked: statements about others do not wait for it."""

import pytest


@pytest.mark.failure(46)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_a_locked_row_of_a_table_that_is_small_enough_to_be_scanned_holds_up_no_other(
    store, rows, other_db
):
    locked, *held = (rows.claim() for _ in range(10))
    with other_db.atomic() as transaction:
        other_db.execute_sql(
            "UPDATE durable_audits SET worker = 'w2' WHERE message_id = %s", [locked.message_id]
        )
        assert store.heartbeat(held) == set()
        assert store.complete(held) == set()
        transaction.rollback()
    assert rows.of(locked.message_id)["worker"] == "w1"
