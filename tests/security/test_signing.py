"""With a signing_key the monitor sends what somebody with the key has written, and nothing else."""

import hmac
import itertools

import pytest

KEY, OTHER_KEY, NEW_KEY = "k" * 16, "o" * 32, b"n" * 16

pytestmark = pytest.mark.failure(52)

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def execute(db):
    """``execute(sql, *params)``: what somebody does who can write the database."""

    def execute(sql, *params):
        with db.connection_context():
            marker = db.param
            return db.execute_sql(sql.replace("?", marker), params)

    return execute


@pytest.fixture
def refused(clock):
    """``refused(process, message, said)``: an hour later its monitor sends nothing, and *said* is why."""

    def check(process, message, said):
        clock.move(hours=1)
        done = process.monitor()
        audit = process.audit(message)
        assert (done.recovered, done.failed, process.waiting()) == (0, 1, 0)
        assert audit.last_error.startswith("SignatureRefused: ")
        assert said in audit.last_error
        assert (audit.state, audit.start_count) == ("pending", 0)
        return True

    return check


def test_what_was_sent_with_the_key_is_sent_again_and_runs(process, clock):
    sender, receiver = process(signing_key=KEY), process(signing_key=KEY)
    sender.charge.send(1)
    with sender.durable.database.atomic():
        sender.charge.send("é😀\0")
    sender.charge.send_with_options(args=(3,), delay=60_000)
    sender.charge.send("requeued")
    clock.move(hours=1)
    done = receiver.monitor()
    assert (done.recovered, done.failed) == (4, 0)
    receiver.work()
    assert receiver.monitor().recovered == 1
    receiver.work()
    assert sorted(map(str, receiver.ran)) == sorted(["1", "é😀\0", "3", "requeued", "requeued"])


def test_what_is_not_signed_is_set_aside_and_the_others_go_on(process, clock, caplog):
    unsigned = process().charge.send(1)
    signed = process(signing_key=KEY).charge.send(2)
    receiver = process(signing_key=KEY)
    clock.move(hours=1)
    done = receiver.monitor()
    assert (done.recovered, done.failed) == (1, 1)
    receiver.work()
    assert receiver.ran == [2]
    assert receiver.audit(signed).state == "completed"
    [line] = [each.getMessage() for each in caplog.records if unsigned.message_id in each.message]
    assert "SignatureRefused" in line
    audit = receiver.audit(unsigned)
    assert (audit.state, audit.enqueue_count) == ("pending", 2)
    assert audit.last_error == (
        "SignatureRefused: the audit is not signed; whoever wrote it has no signing_key"
    )


@on_sqlite
def test_what_is_set_aside_waits_for_its_backoff_each_time_and_is_dead_in_the_end(process, clock):
    message = process().charge.send(1)
    receiver = process(signing_key=KEY)
    clock.move(minutes=12)
    assert receiver.monitor().failed == 1
    clock.move(minutes=7, seconds=55)
    assert not receiver.monitor()
    clock.move(seconds=10)
    assert receiver.monitor().failed == 1
    clock.move(days=3)
    assert receiver.monitor().dead == 1
    assert (receiver.audit(message).state, receiver.waiting()) == ("dead", 0)


@on_sqlite
def test_a_dry_run_counts_what_it_would_set_aside(process, clock, command_on):
    process().charge.send(1)
    receiver = process(signing_key=KEY)
    clock.move(hours=1)
    done = command_on(receiver.broker)("monitor", "--dry-run")
    assert done.stdout == "would have recovered 0, dead 0, deleted 0, failed 1\n"


@pytest.mark.parametrize("column", ["actor_name", "queue_name", "message_id", "signature"])
def test_what_was_altered_is_refused(process, execute, refused, column):
    sender = process(signing_key=KEY)
    message = sender.charge.send(1)
    before = getattr(sender.audit(message), column)
    execute(f"UPDATE durable_audits SET {column} = ?", before[:-1] + "~")
    if column == "message_id":
        message = message.copy(message_id=before[:-1] + "~")
    assert refused(process(signing_key=KEY), message, "altered")


def test_an_altered_payload_is_refused(process, execute, refused):
    sender = process(signing_key=KEY)
    message = sender.charge.send(100)
    altered = bytes(sender.audit(message).payload).replace(b"[100]", b"[999]")
    execute("UPDATE durable_audits SET payload = ?", altered)
    assert refused(process(signing_key=KEY), message, "altered")


@on_sqlite
@pytest.mark.parametrize("signature", ["", "é" * 64, "0" * 64, 5, b"bytes"])
def test_a_signature_that_is_none_is_refused(process, execute, refused, signature):
    message = process(signing_key=KEY).charge.send(1)
    execute("UPDATE durable_audits SET signature = ?", signature)
    assert refused(process(signing_key=KEY), message, "altered")


@on_sqlite
def test_the_signature_of_another_audit_is_refused(process, execute, refused):
    sender = process(signing_key=KEY)
    first, second = sender.charge.send(1), sender.charge.send(1)
    taken = sender.audit(second).signature
    execute("DELETE FROM durable_audits WHERE message_id = ?", second.message_id)
    execute("UPDATE durable_audits SET signature = ?", taken)
    assert refused(process(signing_key=KEY), first, "altered")


@on_sqlite
def test_nothing_can_be_moved_from_one_signed_column_to_the_next(process, execute, refused):
    message = process(signing_key=KEY).charge.send(1)
    execute("UPDATE durable_audits SET actor_name = 'charged', queue_name = 'efault'")
    assert refused(process(signing_key=KEY), message, "altered")


@on_sqlite
def test_what_is_not_signed_of_an_audit_may_change(process, execute):
    sender = process(signing_key=KEY)
    sender.charge.send(1)
    execute("UPDATE durable_audits SET due_at = 1, enqueue_count = 7, last_error = 'x', epoch = 4")
    receiver = process(signing_key=KEY)
    assert receiver.monitor().recovered == 1
    receiver.work()
    assert receiver.ran == [1]


@on_sqlite
def test_a_completed_job_cannot_be_opened_again(process, execute, refused):
    sender = process(signing_key=KEY)
    message = sender.charge.send(1)
    sender.work()
    assert sender.ran == [1]
    execute("UPDATE durable_audits SET state = 'pending', due_at = 1, start_count = 0")
    assert refused(sender, message, "altered")


@on_sqlite
def test_without_a_key_all_is_sent_whoever_signed_it(process, clock):
    process(signing_key=KEY).charge.send(1)
    process().charge.send(2)
    receiver = process()
    clock.move(hours=1)
    assert receiver.monitor().recovered == 2


@on_sqlite
def test_a_key_is_replaced_step_by_step_without_a_refusal(process, clock, refused):
    steps = [KEY, [KEY, NEW_KEY], [NEW_KEY, KEY], NEW_KEY]
    for before, after in itertools.pairwise(steps):
        for sends, recovers in ((before, after), (after, before)):
            process(signing_key=sends).charge.send(1)
            receiver = process(signing_key=recovers)
            clock.move(hours=1)
            assert receiver.monitor().recovered == 1
            receiver.work()
            assert receiver.ran == [1]
    message = process(signing_key=KEY).charge.send(1)
    assert refused(process(signing_key=[NEW_KEY, OTHER_KEY]), message, "not known here")


def test_the_audit_that_a_worker_adopts_is_signed(process, execute, clock):
    worker = process(signing_key=KEY)
    message = worker.charge.send("requeued")
    execute("DELETE FROM durable_audits")
    worker.work()
    assert (worker.ran, worker.audit(message).state) == (["requeued"], "pending")
    assert worker.monitor().recovered == 1
    worker.work()
    assert worker.audit(message).state == "completed"


@on_sqlite
def test_what_an_operator_brings_back_is_still_signed(process, execute, clock, command_on):
    receiver = process(signing_key=KEY)
    message = receiver.charge.send(1)
    receiver.broker.flush_all()
    command = command_on(receiver.broker)
    assert command("cancel", message.message_id).exit_code == 0
    assert command("retry", message.message_id).exit_code == 0
    clock.move(hours=1)
    assert receiver.monitor().recovered == 1


@on_sqlite
def test_a_signature_is_an_hmac_of_what_another_program_can_compute(process, clock):
    sender = process(signing_key=KEY)
    audit = sender.audit(sender.charge.send(1))
    parts = [
        b"dramatiq-durable audit 1",
        audit.message_id.encode(),
        b"charge",
        b"default",
        bytes(audit.payload),
    ]
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert audit.signature == hmac.new(KEY.encode(), text, "sha256").hexdigest()


@on_sqlite
def test_a_key_costs_no_statement(process, clock, caplog):
    def statements(**options):
        each = process(**options)
        caplog.set_level("DEBUG", logger="peewee")
        caplog.clear()
        each.charge.send(1)
        each.broker.flush_all()
        clock.move(hours=1)
        assert each.monitor().recovered == 1
        each.work()
        assert each.ran == [1]
        logged = [record.msg for record in caplog.records if record.name == "peewee"]
        return [sql.split()[0] for sql, _ in logged]

    without = statements()
    assert len(without) > 5
    assert statements(signing_key=KEY) == without
