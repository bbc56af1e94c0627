"""The application's connections and ours do not disturb each other."""

import dramatiq
import pytest

from dramatiq_durable import current_audit, durable_actor

from .conftest import Note

pytestmark = pytest.mark.failure(23)


@pytest.fixture
def durable(durable_beside):
    return durable_beside


def opens_and_closes(db):
    db.connect()
    Note.create(text="kept")
    db.close()


def closes_what_is_closed(db):
    db.close()
    opens_and_closes(db)
    db.close()


def uses_a_context(db):
    with db.connection_context():
        Note.create(text="kept")


def opens_by_a_query_and_closes(db):
    Note.create(text="kept")
    db.close()


TIDY = [opens_and_closes, closes_what_is_closed, uses_a_context, opens_by_a_query_and_closes]


def test_actors_may_open_and_close_their_connection_before_and_after_what_we_do(
    durable, db, work, audits, notes, beat
):
    @durable_actor(max_retries=0)
    def write(index):
        TIDY[index](db)
        beat()
        inner.send()
        TIDY[index](db)

    @durable_actor
    def inner():
        pass

    for index in range(len(TIDY)):
        write.send(index)
    work()
    assert notes() == ["kept"] * 2 * len(TIDY)
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2 * len(TIDY)


def test_what_an_actor_leaks_disturbs_nobody(durable, db, work, audits, notes, beat):
    leaked = []

    @durable_actor(max_retries=0)
    def leak():
        db.connect(reuse_if_open=True)
        leaked.append(db.execute_sql("SELECT 1 UNION SELECT 2"))
        beat()
        Note.create(text="kept")

    for _ in range(3):
        leak.send()
    work()
    assert notes() == ["kept"] * 3
    assert [audit.state for audit in audits(durable)] == ["completed"] * 3


def test_a_claim_and_a_completion_are_no_part_of_a_transaction_around_the_job(
    stub_broker, durable, db, work, audit_of
):
    class Around(dramatiq.Middleware):
        """Has each job in a transaction, and rolls it back."""

        def before_process_message(self, broker, message):
            self.transaction = db.transaction()
            self.transaction.__enter__()

        def after_process_message(self, broker, message, *, result=None, exception=None):
            self.transaction.rollback()
            self.transaction.__exit__(None, None, None)

    stub_broker.add_middleware(Around(), before=type(durable))
    states = []

    @durable_actor
    def charge():
        states.append(audit_of(message).state)

    message = charge.send()
    work()
    assert states == ["running"]
    assert audit_of(message).state == "completed"


def test_a_heartbeat_is_no_part_of_the_actors_transaction(durable, db, work, audit_of, beat):
    renewed = []

    @durable_actor
    def charge():
        before = audit_of(message).due_at
        with db.atomic() as transaction:
            beat()
            transaction.rollback()
        renewed.append(audit_of(message).due_at > before)

    message = charge.send()
    work()
    assert renewed == [True]


def test_a_send_in_manual_commit_is_no_part_of_it(durable, db, work, audits):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    with db.connection_context(), db.manual_commit():
        db.begin()
        charge.send(1)
        assert len(audits(durable)) == 1
        work()
        db.rollback()
    assert ran == [1]
    assert [audit.state for audit in audits(durable)] == ["completed"]


def test_transaction_leaves_the_connection_as_the_actor_had_it(durable, db, work, audit_of, notes):
    open_after = []

    @durable_actor(max_retries=0)
    def settle(was_open):
        if was_open:
            db.connect()
        audit = current_audit()
        assert audit is not None
        with audit.transaction():
            Note.create(text="kept")
        open_after.append(not db.is_closed())
        db.close()

    cases = [False, True, False, True]
    messages = [settle.send(was_open) for was_open in cases]
    work()
    assert open_after == cases
    assert notes() == ["kept"] * 4
    assert {audit_of(message).state for message in messages} == {"completed"}
