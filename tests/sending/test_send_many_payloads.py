"""What the audits of ``send_many()`` hold: payloads of every kind, signatures, columns."""

import dramatiq
import peewee
import pytest
from dramatiq.encoder import PickleEncoder

from dramatiq_durable import Audit, DurableMiddleware
from dramatiq_durable.errors import PayloadTooLarge


def test_the_audits_of_a_list_are_like_those_of_single_sends(db_durable, charge, audit_of):
    charge(job_timeout=123_000, heartbeat_interval=1_000)
    single = audit_of(charge.send("é\0\\'\""))
    message = charge.message("é\0\\'\"")
    db_durable.send_many([message])
    other = audit_of(message)
    varies = {"id", "message_id", "payload", "created_at", "scheduled_at", "enqueued_at", "due_at"}
    for name in set(single.__data__) - varies:
        assert getattr(other, name) == getattr(single, name), name
    assert other.due_at - other.created_at == single.due_at - single.created_at
    assert other.scheduled_at == other.created_at
    assert other.enqueued_at == other.created_at
    assert len(other.payload) == len(single.payload)


@pytest.mark.failure(11)
@pytest.mark.parity(5)
def test_hundred_payloads_of_300_000_characters_are_stored_whole(
    stub_broker, db_durable, charge, waiting, audits, decoded
):
    texts = [f"{n} \\ é \0 ' 😀" + "x" * 300_000 for n in range(100)]
    charge.send_many((text,) for text in texts)
    assert waiting(stub_broker) == 100
    stored = [db_durable.store.get(audit.message_id) for audit in audits(db_durable)]
    stored.sort(key=lambda audit: audit.id)
    assert [decoded(audit)["args"] for audit in stored] == [[text] for text in texts]


@pytest.fixture
def pickled():
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    yield
    dramatiq.set_encoder(before)


@pytest.mark.parity(5)
def test_pickled_objects_come_through_a_re_send(
    redis_broker, db, make_durable, pickled, charge, ran, work, monitor, clock
):
    make_durable(redis_broker, db)
    objects = [{n, b"\xff\0\\"} for n in range(70)]
    charge.send_many((each,) for each in objects)
    redis_broker.flush_all()
    clock.move(minutes=11)
    monitor.run_once()
    work()
    assert sorted(ran, key=str) == sorted(objects, key=str)


@pytest.mark.failure(9)
@pytest.mark.parametrize("bad", [0, 69, 99])
def test_one_argument_that_cannot_be_encoded_refuses_the_list(
    redis_broker, redis_durable, charge, waiting, audits, bad
):
    with pytest.raises(TypeError, match="not JSON serializable"):
        charge.send_many((object() if n == bad else n,) for n in range(100))
    assert audits(redis_durable) == []
    assert waiting(redis_broker) == 0
    assert charge.send_many((n,) for n in range(100)) == 100


@pytest.mark.failure(9)
@pytest.mark.parametrize("bad", [0, 69, 99])
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_one_payload_over_the_limit_refuses_the_list(
    broker, durable, charge, ran, work, audits, bad
):
    charge(max_payload_size=1000)
    with pytest.raises(PayloadTooLarge):
        charge.send_many(("x" * (1000 if n == bad else 100),) for n in range(100))
    assert audits(durable) == []
    work()
    assert ran == []
    assert charge.send_many(("x" * 100,) for n in range(100)) == 100


@pytest.mark.failure(52)
def test_signed_audits_are_accepted_by_their_key_only(
    stub_broker, db, make_durable, charge, ran, work, monitor, clock, audits
):
    durable = make_durable(stub_broker, db, signing_key="a secret of sixteen bytes")
    charge.send_many([(n,) for n in range(70)])
    stub_broker.flush_all()
    [altered, *rest] = audits(durable)
    assert len({audit.signature for audit in rest} - {None}) == 69
    db.execute_sql(f"UPDATE durable_audits SET signature = 'f00' WHERE id = {altered.id}")
    clock.move(minutes=11)
    monitor.run_once()
    work()
    assert len(ran) == 69
    assert "sign" in durable.store.get(altered.message_id).last_error


def test_columns_of_the_application_are_filled_for_each(
    stub_broker, db, make_durable, charge, ran, work
):
    class RankedAudit(Audit):
        rank = peewee.IntegerField(null=True)
        region = peewee.CharField(null=True)

        class Meta:
            database = db
            table_name = "ranked_audits"

    class Ranked(DurableMiddleware):
        def audit_columns(self, broker, message):
            rank = message.args[0]
            return {"rank": rank, "region": peewee.fn.UPPER("eu")} if rank % 2 else {"rank": rank}

    durable = make_durable(stub_broker, db, Ranked, audit_model=RankedAudit)
    charge.send_many([(n,) for n in range(130)])
    with db.atomic():
        durable.send_many([charge.message(130)])
    cursor = db.execute_sql("SELECT rank, region FROM ranked_audits ORDER BY id")
    assert list(cursor.fetchall()) == [(n, "EU" if n % 2 else None) for n in range(131)]
    work()
    assert ran == list(range(131))
