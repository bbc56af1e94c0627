"""What is in the payload column is decoded only when it is signed, for a decoder may run code."""

import os
import pickle

import pytest
from dramatiq.encoder import PickleEncoder

KEY = b"k" * 16

pytestmark = pytest.mark.failure(52)


@pytest.fixture
def db(sqlite_db):
    return sqlite_db


class Harm:
    """Makes *folder* when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def harm(tmp_path):
    """What is there when harm was done."""
    return tmp_path / "harm"


@pytest.fixture
def plant(db, harm, encode_with):
    """``plant(process)``: the message of an audit of its, whose payload somebody has replaced by a harmful pickle."""
    encode_with(PickleEncoder())

    def plant(process, payload=None):
        message = process.charge.send(1)
        with db.connection_context():
            db.execute_sql(
                "UPDATE durable_audits SET payload = ?", (payload or pickle.dumps(Harm(harm)),)
            )
        return message

    return plant


def test_the_monitor_of_somebody_without_a_key_runs_what_is_planted(process, plant, clock, harm):
    plant(process())
    clock.move(hours=1)
    assert process().monitor().failed == 1
    assert harm.exists()


@pytest.mark.parametrize("sender_options", [{}, {"signing_key": KEY}], ids=["unsigned", "altered"])
def test_the_monitor_does_not_decode_what_is_not_signed(
    process, plant, clock, harm, sender_options
):
    message = plant(process(**sender_options))
    receiver = process(signing_key=KEY)
    clock.move(hours=1)
    assert receiver.monitor().failed == 1
    assert receiver.audit(message).last_error.startswith("SignatureRefused")
    assert not harm.exists()


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_show_decodes_what_is_not_signed_only_for_somebody_without_a_key(
    process, plant, harm, command_on, as_json
):
    message = plant(process())
    words = ("show", message.message_id, "--arguments", *as_json)
    done = command_on(process(signing_key=KEY).broker)(*words)
    assert done.exit_code == 0
    assert "the audit is not signed" in done.stdout
    assert not harm.exists()
    command_on(process().broker)(*words)
    assert harm.exists()


@pytest.mark.parametrize("name", ["status", "list", "show ID", "cancel ID", "retry ID", "purge -y"])
def test_no_other_command_decodes_anything(process, plant, harm, command_on, name):
    message = plant(process())
    name, *words = name.replace("ID", message.message_id).split()
    command_on(process().broker)(name, *words)
    assert not harm.exists()


def test_show_prints_the_arguments_of_what_is_signed(process, command_on):
    signing = process(signing_key=KEY)
    message = signing.charge.send("for your eyes only")
    done = command_on(signing.broker)("show", message.message_id, "--arguments")
    assert "for your eyes only" in done.stdout
    assert "not_decoded" not in done.stdout


@pytest.mark.parametrize("name", ["message_id", "actor_name", "queue_name"])
@pytest.mark.parametrize("options", [{}, {"signing_key": KEY}], ids=["without key", "with key"])
def test_a_payload_that_is_another_message_than_its_audit_says_is_never_sent(
    process, db, clock, name, options
):
    sender = process(**options)
    message, good = sender.charge.send(1), sender.charge.send(2)
    other = message.copy(**{name: "another"})
    with db.connection_context():
        db.execute_sql(
            "UPDATE durable_audits SET payload = ? WHERE message_id = ?",
            (other.encode(), message.message_id),
        )
    sender.broker.flush_all()
    clock.move(hours=1)
    done = sender.monitor()
    assert (done.recovered, done.failed) == (1, 1)
    said = "altered" if options else f"another {name}"
    assert said in sender.audit(message).last_error
    sender.work()
    assert sender.ran == [2]
    assert sender.audit(good).state == "completed"


@pytest.mark.parametrize("payload", [b"", b"\0", pickle.dumps([]), pickle.dumps({"args": 5})])
def test_what_is_no_message_is_set_aside_with_its_reason(process, plant, clock, payload):
    receiver = process()
    message = plant(receiver, payload or b" ")
    receiver.broker.flush_all()
    clock.move(hours=1)
    assert receiver.monitor().failed == 1
    assert receiver.audit(message).last_error == "DecodeError: Failed to decode message."
