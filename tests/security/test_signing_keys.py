"""Which keys are accepted, where they may be, and that nobody sees them."""

import pprint

import dramatiq
import pytest

from dramatiq_durable import AuditWriteFailed, DurableError, DurableMiddleware, durable_actor

KEY, OTHER_KEY = "hunter2-" * 4, b"swordfish" * 4
VARIABLE = "DRAMATIQ_DURABLE_SIGNING_KEY"

pytestmark = pytest.mark.failure(52)


@pytest.fixture
def db(sqlite_db):
    return sqlite_db


@pytest.mark.parametrize("key", ["k" * 16, b"k" * 16, "é" * 8, ["k" * 16], ("k" * 16, b"n" * 32)])
def test_a_key_may_be_text_or_bytes_or_a_list_of_them(process, clock, key):
    sender, receiver = process(signing_key=key), process(signing_key=key)
    sender.charge.send(1)
    clock.move(hours=1)
    assert receiver.monitor().recovered == 1
    assert sender.durable.store.list_audits()[0].signature is not None


def test_text_and_its_utf8_are_the_same_key(process, clock):
    process(signing_key="schlüssel" * 2).charge.send(1)
    clock.move(hours=1)
    assert process(signing_key=("schlüssel" * 2).encode()).monitor().recovered == 1


@pytest.mark.parametrize(
    "key",
    [
        "",
        b"",
        "hunter2",
        "é" * 7,
        b"hunter2-hunter2",
        [KEY, "hunter2"],
        ["hunter2", KEY],
        [KEY, ""],
    ],
)
def test_a_key_of_fewer_than_16_bytes_is_refused(sqlite_db, shown, key):
    with pytest.raises(ValueError, match="signing_key has fewer than 16 bytes") as caught:
        DurableMiddleware(sqlite_db, signing_key=key)
    assert isinstance(caught.value, DurableError)
    assert "secrets.token_hex" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [[], (), 5, 5.0, True, object(), bytearray(16), {KEY}, {"key": KEY}, [[KEY]], [KEY, None]],
)
def test_what_is_no_key_is_refused(sqlite_db, key):
    with pytest.raises(ValueError, match="signing_key must be a text, bytes, or a list") as caught:
        DurableMiddleware(sqlite_db, signing_key=key)
    assert isinstance(caught.value, DurableError)
    assert "hunter2" not in str(caught.value)


def test_it_is_no_option_of_an_actor(sqlite_db, stub_broker, make_durable):
    make_durable(stub_broker, sqlite_db)
    with pytest.raises(ValueError, match="signing_key"):
        durable_actor(actor_name="job", signing_key=KEY)(lambda: None)
    assert stub_broker.get_declared_actors() == set()


def signature(process):
    return process.audit(process.charge.send(1)).signature


def test_the_key_may_be_in_the_environment(process, clock, monkeypatch):
    assert signature(process()) is None
    monkeypatch.setenv(VARIABLE, KEY)
    assert signature(process()) is not None
    assert signature(process(signing_key=None)) is not None
    monkeypatch.delenv(VARIABLE)
    clock.move(hours=1)
    done = process(signing_key=KEY).monitor()
    assert (done.recovered, done.failed) == (2, 1)


def test_what_is_given_goes_before_the_environment(process, clock, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    process(signing_key=OTHER_KEY).charge.send(1)
    clock.move(hours=1)
    assert process().monitor().failed == 1


@pytest.mark.parametrize("key", ["", "hunter2"])
def test_an_empty_or_short_key_in_the_environment_is_not_taken_for_none(
    sqlite_db, monkeypatch, key
):
    monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(DurableError, match=f"{VARIABLE}.* fewer than 16 bytes") as caught:
        DurableMiddleware(sqlite_db)
    assert "hunter2" not in str(caught.value)


def test_the_keys_are_neither_shown_nor_logged(process, clock, logged, command_on, shown, db):
    sender, receiver = process(signing_key=[KEY, OTHER_KEY]), process(signing_key=OTHER_KEY)
    message = sender.charge.send(1)
    clock.move(hours=1)
    receiver.monitor()  # refused
    sender.monitor()
    sender.work()
    said = [logged()]
    command = command_on(sender.broker)
    for line in ("status", f"show --arguments --verbose {message.message_id}", "monitor --once"):
        name, *more = line.split()
        said.append(command(name, *more).output)
    db.execute_sql("DROP TABLE durable_audits")
    db.close()
    with pytest.raises(AuditWriteFailed) as caught:
        sender.charge.send(1)
    said.append(shown(caught.value))
    durable = sender.durable
    for each in (durable, durable.options, durable.store, durable.store.reserved(), vars(durable)):
        said.append(pprint.pformat(each))
    said += [pprint.pformat(vars(each)) for each in (durable.store, sender.broker)]
    text = "\n".join(said)
    assert "SignatureRefused" in text
    assert "hunter2" not in text
    assert "swordfish" not in text
    assert isinstance(sender.broker, dramatiq.Broker)
