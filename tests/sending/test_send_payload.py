"""Arguments of every kind come through; those that cannot are refused with nothing written."""

import ast
import pickle
import zlib

import dramatiq
import pytest
from dramatiq.encoder import JSONEncoder, PickleEncoder

from dramatiq_durable import DurableError, durable_actor

TEXT = "\0é😀" * 100_000


class ZlibEncoder(dramatiq.Encoder):
    """Bytes that are no text in any encoding."""

    def encode(self, data):
        return zlib.compress(JSONEncoder().encode(data))

    def decode(self, data):
        return JSONEncoder().decode(zlib.decompress(data))


class RawEncoder(dramatiq.Encoder):
    """The text of the arguments as it is, NUL bytes and emoji included."""

    def encode(self, data):
        return repr(data).encode().replace(rb"\x00", b"\0")

    def decode(self, data):
        return ast.literal_eval(data.replace(b"\0", rb"\x00").decode())


ENCODERS = {
    "json": JSONEncoder(),
    "pickle": PickleEncoder(),
    "zlib": ZlibEncoder(),
    "raw": RawEncoder(),
}


@pytest.fixture
def encoder(request):
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(ENCODERS[request.param])
    yield ENCODERS[request.param]
    dramatiq.set_encoder(before)


@pytest.fixture
def got():
    return []


@pytest.fixture
def declare(got):
    def declare(**options):
        @durable_actor(**options)
        def note(*args, **kwargs):
            got.append((args, kwargs))

        return note

    return declare


@pytest.mark.parity(5)
@pytest.mark.parametrize("encoder", sorted(ENCODERS), indirect=True)
def test_300_000_characters_come_through_a_re_send(
    stub_broker, db, make_durable, declare, encoder, got, work, monitor, clock
):
    make_durable(stub_broker, db)
    note = declare()
    note.send(TEXT, key=TEXT[::-1])
    stub_broker.flush_all()
    clock.move(minutes=11)
    monitor.run_once()
    work()
    assert got == [((TEXT,), {"key": TEXT[::-1]})]


@pytest.mark.parity(5)
@pytest.mark.parametrize("encoder", ["pickle"], indirect=True)
def test_pickled_objects_come_through_a_re_send(
    broker, durable, declare, encoder, got, work, monitor, clock
):
    note = declare()
    note.send({1, 2}, b"\xff\0", 3 + 4j)
    broker.flush_all()
    clock.move(minutes=11)
    monitor.run_once()
    work()
    assert got == [(({1, 2}, b"\xff\0", 3 + 4j), {})]


@pytest.mark.parity(5)
def test_300_000_characters_come_through_each_broker(broker, durable, declare, got, work):
    declare().send(TEXT)
    work()
    assert got == [((TEXT,), {})]


@pytest.mark.failure(9)
def test_arguments_that_cannot_be_encoded_leave_neither_audit_nor_message(
    broker, durable, declare, waiting, audits
):
    note = declare()
    with pytest.raises(TypeError, match="not JSON serializable"):
        note.send(object())
    assert audits(durable) == []
    assert waiting(broker) == 0


@pytest.mark.failure(9)
@pytest.mark.parametrize("encoder", ["pickle"], indirect=True)
def test_whatever_the_encoder_raises_reaches_the_sender(
    stub_broker, stub_durable, declare, encoder, waiting, audits
):
    note = declare()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        note.send(lambda: None)
    assert audits(stub_durable) == []
    assert waiting(stub_broker) == 0


@pytest.fixture
def size(stub_durable, stub_broker):
    """The size in bytes of a message like those of the tests below."""

    @durable_actor
    def note_(text):
        pass

    message = note_.send("x" * 1000)
    stub_broker.flush_all()
    return len(stub_durable.store.get(message.message_id).payload)


@pytest.fixture
def limited():
    """An actor, with a name as long as that of *size*, that has a limit."""

    def declare(limit):
        @durable_actor(max_payload_size=limit)
        def limit_(text):
            pass

        return limit_

    return declare


@pytest.mark.parity(13)
def test_a_payload_of_just_the_limit_is_sent(stub_broker, stub_durable, size, limited, waiting):
    assert len("note_") == len("limit_") - 1
    limited(size + 1).send("x" * 1000)
    assert waiting(stub_broker) == 1


@pytest.mark.failure(9)
@pytest.mark.parity(13)
def test_one_byte_more_is_refused_with_the_size_and_the_limit(
    stub_broker, stub_durable, size, limited, waiting, audit_of, audits
):
    limit_ = limited(size)
    with pytest.raises(DurableError) as caught:
        limit_.send("x" * 1000)
    assert f"{size + 1}" in str(caught.value).replace(",", "").replace("_", "")
    assert f"{size}" in str(caught.value).replace(",", "").replace("_", "")
    assert "limit_" in str(caught.value)
    assert "xxx" not in str(caught.value)
    assert [audit.actor_name for audit in audits(stub_durable)] == ["note_"]
    assert waiting(stub_broker) == 0


@pytest.mark.parity(13)
@pytest.mark.parametrize("where", ["middleware", "actor", "message"])
def test_the_limit_may_be_set_for_all_for_an_actor_or_for_a_message(
    where, stub_broker, sqlite_db, make_durable, declare, waiting
):
    limit = {"max_payload_size": 500}
    make_durable(stub_broker, sqlite_db, **(limit if where == "middleware" else {}))
    note = declare(**(limit if where == "actor" else {}))
    options = limit if where == "message" else {}
    with pytest.raises(DurableError):
        note.send_with_options(args=("x" * 500,), **options)
    assert waiting(stub_broker) == 0
    note.send_with_options(args=("x",), **options)
    assert waiting(stub_broker) == 1


@pytest.mark.parity(13)
def test_an_actor_that_is_not_durable_has_no_limit(stub_broker, sqlite_db, make_durable, waiting):
    make_durable(stub_broker, sqlite_db, max_payload_size=500)

    @dramatiq.actor
    def note(text):
        pass

    note.send("x" * 500)
    assert waiting(stub_broker) == 1


@pytest.mark.failure(9)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_a_message_too_large_for_its_limit_reaches_no_broker(
    broker, durable, declare, waiting, audits
):
    note = declare(max_payload_size=1000)
    with pytest.raises(DurableError):
        note.send("x" * 1000)
    assert waiting(broker) == 0
    assert audits(durable) == []
