"""Arguments are secrets: they are in the broker and in the payload column, until the job is completed."""

import dramatiq
import pytest
from dramatiq.encoder import JSONEncoder, PickleEncoder

from dramatiq_durable import (
    AuditWriteFailed,
    DurableError,
    Monitor,
    current_audit,
    durable_actor,
)

SECRET = "4111-1111-1111"

pytestmark = pytest.mark.failure(49)


class Reversed(dramatiq.Encoder):
    """The arguments come first."""

    def encode(self, data):
        fields = dict(reversed(list(data.items())))
        return JSONEncoder().encode({"args": fields.pop("args"), **fields})

    def decode(self, data):
        return JSONEncoder().decode(data)


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def rows(db):
    """``rows()``: each row of the table, as text."""

    def read():
        with db.connection_context():
            found = db.execute_sql("SELECT * FROM durable_audits").fetchall()
        return [str([bytes(v) if isinstance(v, memoryview) else v for v in row]) for row in found]

    return read


def is_in(text):
    """Whether the arguments can be read in *text*, be it in hexadecimal numbers."""
    return SECRET in text or SECRET.encode().hex() in text.lower()


@pytest.mark.parametrize("encoder", [JSONEncoder(), PickleEncoder(), Reversed()])
def test_no_logger_tells_them_while_a_job_is_sent_fails_is_retried_recovered_and_dies(
    stub_broker, durable, clock, work, logged, encode_with, rows, audits, encoder
):
    encode_with(encoder)

    @durable_actor(max_retries=1, min_backoff=1, max_crashes=2)
    def charge(card, *, cvc):
        raise RuntimeError("refused")

    charge.send(SECRET, cvc=SECRET)
    charge.send_with_options(args=(SECRET,), kwargs={"cvc": SECRET}, delay=1)
    with durable.database.atomic():
        message = charge.send(SECRET, cvc=SECRET)
    stub_broker.enqueue(message)
    work()
    assert {audit.failure_count for audit in audits(durable)} == {2}
    clock.move(hours=1)
    assert Monitor(stub_broker).run_once().recovered == 3
    stub_broker.flush_all()
    clock.move(days=4)
    assert Monitor(stub_broker).run_once().dead == 3
    assert all(is_in(row) for row in rows())
    assert message.message_id in logged()
    assert not is_in(logged())


def test_neither_log_nor_last_error_tells_those_of_a_message_that_cannot_be_sent(
    stub_broker, durable, db, clock, logged, audits, command_on, caplog
):
    charge = durable_actor(lambda card: None, actor_name="charge")
    charge.send(SECRET)
    stub_broker.flush_all()
    payload = f'{{"args": ["{SECRET}"], "cut off'.encode()
    with db.connection_context():
        db.execute_sql(f"UPDATE durable_audits SET payload = {db.param}", (payload,))
    caplog.clear()  # of this statement of ours
    clock.move(hours=1)
    assert Monitor(stub_broker).run_once().failed == 1
    [audit] = audits(durable)
    assert "DecodeError" in audit.last_error
    command = command_on(stub_broker)
    said = [
        command(name, *more).output for name in ("list", "status") for more in ((), ("--json",))
    ]
    said += [command("show", audit.message_id).output, logged(), audit.last_error]
    assert not any(is_in(each) for each in said)


@pytest.mark.parametrize("wrong", ["no table", "no column", "too large", "refused by the table"])
def test_no_error_of_a_send_tells_them(stub_broker, durable, db, logged, shown, rows, wrong):
    charge = durable_actor(lambda card: None, actor_name="charge", max_payload_size=1_000)
    argument = SECRET * 1_000 if wrong == "too large" else SECRET
    statements = {
        "no table": "DROP TABLE durable_audits",
        "no column": "ALTER TABLE durable_audits DROP COLUMN signature",
        "refused by the table": "ALTER TABLE durable_audits ADD CONSTRAINT few CHECK (enqueue_count > 5)",
    }
    if wrong == "refused by the table" and db.param == "?":
        # SQLite has no such ALTER.
        statements[wrong] = (
            "CREATE TRIGGER few BEFORE INSERT ON durable_audits"
            " BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: few'); END"
        )
    if wrong in statements:
        with db.connection_context():
            db.execute_sql(statements[wrong])
    expected = DurableError if wrong == "too large" else AuditWriteFailed
    with pytest.raises(expected) as caught:
        charge.send(argument)
    assert type(caught.value).__name__ in shown(caught.value)
    assert not is_in(shown(caught.value) + logged())


def test_they_are_gone_when_the_job_is_completed(stub_broker, durable, db, work, rows):
    @durable_actor
    def charge(card):
        pass

    @durable_actor
    def settle(card):
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            pass

    messages = [charge.send(SECRET), settle.send(SECRET)]
    assert [is_in(row) for row in rows()] == [True, True]
    work()
    assert [durable.store.get(each.message_id).state for each in messages] == ["completed"] * 2
    assert [is_in(row) for row in rows()] == [False, False]
