"""Many claims in one statement are those that would be made one by one."""

from datetime import timedelta

import pytest

from dramatiq_durable.errors import AuditLocked
from dramatiq_durable.store import CLAIMS, Claim

OWN = {"id", "message_id", "claim_id", "created_at", "scheduled_at", "due_at", "started_at"}


def claim_of(message_id, epoch=0, **changes):
    options = {"parent": None, "worker": "w1", "lease": None, "enqueued_at": None}
    return Claim(message_id, epoch, f"claim of {message_id}", **{**options, **changes})


def without_own(row):
    return {name: value for name, value in row.items() if name not in {*OWN, "enqueued_at"}}


@pytest.mark.parametrize("count", [2, 3, CLAIMS - 1, CLAIMS])
def test_those_that_are_claimed_together_are_as_if_one_by_one(store, rows, count):
    alone, *together = [rows.enqueue().message_id for _ in range(count + 1)]
    assert store.claim(alone, 0, "c1", worker="w1")
    claims = [claim_of(each) for each in together]
    assert store.claim_all(claims) == {claim.held for claim in claims}
    for message_id in together:
        assert without_own(rows.of(message_id)) == without_own(rows.of(alone))
        row = rows.of(message_id)
        assert row["claim_id"] == f"claim of {message_id}"
        assert row["enqueued_at"] == row["created_at"]
        assert row["due_at"] - row["started_at"] == timedelta(seconds=20)


def test_each_is_claimed_with_its_own_worker_lease_and_time(store, rows):
    first, second = rows.enqueue().message_id, rows.enqueue().message_id
    claims = [
        claim_of(first, worker="w1", lease=5_000_000, enqueued_at=1_000_000),
        claim_of(second, worker="w2"),
    ]
    assert len(store.claim_all(claims)) == 2
    one, two = rows.of(first), rows.of(second)
    assert (one["worker"], two["worker"]) == ("w1", "w2")
    assert one["due_at"] - one["started_at"] == timedelta(seconds=5)
    assert two["due_at"] - two["started_at"] == timedelta(seconds=20)
    assert one["enqueued_at"].timestamp() != two["enqueued_at"].timestamp()


def test_only_those_that_are_the_copies_to_claim_are_claimed(store, rows):
    free = rows.enqueue().message_id
    held = rows.claim()
    retry = claim_of(held.message_id, 2, parent=held.claim_id)
    claims = [
        claim_of(free),
        retry,
        claim_of(rows.claim().message_id),  # claimed by another
        claim_of(rows.claim().message_id, 2, parent="of another"),
        claim_of(rows.enqueue().message_id, 1),  # of another epoch
        claim_of(rows.complete()),
        claim_of(rows.cancel()),
        claim_of("nowhere"),
    ]
    before = [rows.of(claim.message_id) for claim in claims[2:]]
    assert store.claim_all(claims) == {claims[0].held, retry.held}
    assert [rows.of(claim.message_id) for claim in claims[2:]] == before
    assert (rows.of(held.message_id)["epoch"], rows.of(free)["epoch"]) == (3, 1)


def test_claims_whose_answer_was_lost_are_made_again_without_harm(store, rows):
    claims = [claim_of(rows.enqueue().message_id) for _ in range(3)]
    assert store.claim_all(claims[:2]) == {claim.held for claim in claims[:2]}
    before = rows.of(claims[0].message_id)
    assert store.claim_all(claims) == {claim.held for claim in claims}
    assert rows.of(claims[0].message_id) == before


def test_many_claims_are_one_statement(store, rows, statements):
    claims = [claim_of(rows.enqueue().message_id) for _ in range(CLAIMS)]
    del statements[:]
    store.claim_all(claims)
    assert len(statements) == 1


@pytest.mark.failure(46)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_where_one_is_locked_by_somebody_none_is_claimed_after_one_wait(store, rows, other_db):
    claims = [claim_of(rows.enqueue().message_id) for _ in range(3)]
    with other_db.atomic() as transaction:
        other_db.execute_sql(
            "UPDATE durable_audits SET worker = 'x' WHERE message_id = %s", [claims[1].message_id]
        )
        with pytest.raises(AuditLocked):
            store.claim_all(claims)
        assert store.claim_all(claims[:1]) == {claims[0].held}
        transaction.rollback()
    assert rows.of(claims[2].message_id)["state"] == "pending"
    assert store.claim_all(claims) == {claim.held for claim in claims}
