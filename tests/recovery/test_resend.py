"""What the monitor sends is the message as it was, to the queue that its actor has now."""

import pickle
import zlib
from datetime import timedelta
from typing import NamedTuple

import dramatiq
import pytest
from dramatiq.encoder import JSONEncoder, PickleEncoder
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_durable import DurableMiddleware, durable_actor

OF_A_COPY = {
    "eta", "retries", "traceback", "redis_message_id", "requeue_timestamp", "durable_enqueued_at",
}  # fmt: skip


class Point(NamedTuple):
    """What JSON would turn into something else."""

    x: int


class ZlibEncoder(dramatiq.Encoder):
    """Bytes that are no text in any encoding."""

    def encode(self, data):
        return zlib.compress(JSONEncoder().encode(data))

    def decode(self, data):
        return JSONEncoder().decode(zlib.decompress(data))


@pytest.fixture
def encode_with():
    """``encode_with(encoder)``, until the end of the test."""
    before = dramatiq.get_encoder()
    yield dramatiq.set_encoder
    dramatiq.set_encoder(before)


@pytest.fixture
def lose_and_recover(broker, clock, monitor):
    """The broker loses everything, and the monitor sends it again."""

    def lose_and_recover(broker=broker, **after):
        broker.flush_all()
        clock.move(**after or {"hours": 1})
        return monitor.run_once().recovered

    return lose_and_recover


@pytest.mark.parity(5)
def test_the_worker_gets_the_message_that_was_sent(
    broker, durable, watch, lose_and_recover, work, audit_of
):
    got = []

    @durable_actor(queue_name="bills", priority=7)
    def charge(*args, **kwargs):
        got.append((args, kwargs))

    message = charge.send_with_options(
        args=(42, ["é😀\0"]),
        kwargs={"currency": None},
        broker_priority=3,
        max_retries=4,
        custom={"a": 1},
        job_timeout=120_000,
    )
    watcher = watch(broker)
    assert lose_and_recover() == 1
    work()
    assert got == [((42, ["é😀\0"]), {"currency": None})]
    [seen] = watcher.processed
    for field in ("message_id", "message_timestamp", "queue_name", "actor_name", "args", "kwargs"):
        assert getattr(seen, field) == getattr(message, field)
    wanted = {k: v for k, v in message.options.items() if k not in OF_A_COPY}
    assert {k: v for k, v in seen.options.items() if k not in OF_A_COPY} == wanted
    assert wanted["broker_priority"] == 3
    assert wanted["max_retries"] == 4
    assert wanted["custom"] == {"a": 1}
    assert audit_of(message).state == "completed"


@pytest.mark.parametrize(
    ("encoder", "arguments"),
    [
        (PickleEncoder(), (Point(1), b"\0\xff", {1: 2})),
        (ZlibEncoder(), ("é😀\0" * 100_000, 1.5, None)),
    ],
    ids=["pickle", "zlib"],
)
@pytest.mark.parametrize("broker", ["stub", "redis"], indirect=True)
def test_any_encoder_survives_a_re_send(
    broker, durable, encode_with, lose_and_recover, work, encoder, arguments
):
    encode_with(encoder)
    got = []

    @durable_actor
    def note(*args):
        got.append(args)

    note.send(*arguments)
    assert lose_and_recover() == 1
    work()
    assert got == [arguments]
    assert [type(argument) for argument in got[0]] == [type(argument) for argument in arguments]


def test_the_payload_is_stored_in_the_encoding_of_the_broker(
    stub_broker, stub_durable, encode_with, declare
):
    encode_with(PickleEncoder())
    message = declare().send(42)
    stored = pickle.loads(stub_durable.store.get(message.message_id).payload)  # noqa: S301 - our own
    assert (stored["message_id"], tuple(stored["args"])) == (message.message_id, (42,))


class Tracing(dramatiq.Middleware):
    """What OpenTelemetry and Sentry do: the trace of who sends goes with the message, to who works."""

    def __init__(self):
        self.trace = None
        self.seen = []

    def before_enqueue(self, broker, message, delay):
        if self.trace is not None:
            message.options["trace"] = {"traceparent": self.trace, "baggage": "é=1"}

    def before_process_message(self, broker, message):
        self.seen.append(message.options["trace"])


@pytest.fixture
def tracing(broker, durable):
    """Another middleware, before ours."""
    made = Tracing()
    broker.add_middleware(made, before=DurableMiddleware)
    return made


@pytest.fixture
def comes_with_its_trace(tracing, lose_and_recover, work, ran):
    """``comes_with_its_trace(send)``: what *send* sends, is lost twice, and sent again by a monitor that is in no trace."""

    def check(send):
        tracing.trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        sent = {"traceparent": tracing.trace, "baggage": "é=1"}
        send()
        tracing.trace = None
        assert lose_and_recover() == 1
        assert lose_and_recover() == 1
        work()
        assert (ran, tracing.seen) == ([42], [sent])

    return check


@pytest.mark.parametrize("delay", [None, 1], ids=["at once", "delayed"])
def test_the_trace_of_the_sender_goes_with_each_copy(tracing, comes_with_its_trace, declare, delay):
    charge = declare()
    comes_with_its_trace(lambda: charge.send_with_options(args=(42,), delay=delay))


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_so_it_does_with_messages_that_are_sent_together(tracing, comes_with_its_trace, declare):
    charge = declare()
    comes_with_its_trace(lambda: charge.send_many([(42,)]))


@pytest.mark.parity(3)
@pytest.mark.parity(12)
def test_the_result_of_a_re_sent_message_is_stored_under_its_own_id(
    broker, durable, lose_and_recover, work, audits
):
    results = StubBackend()
    broker.add_middleware(Results(backend=results))

    @durable_actor(store_results=True)
    def double(number):
        return 2 * number

    message = double.send(21)
    assert lose_and_recover() == 1
    work()
    assert message.get_result(backend=results) == 42
    [audit] = audits(durable)
    assert (audit.message_id, audit.enqueue_count) == (message.message_id, 2)


@pytest.mark.parity(5)
def test_a_message_goes_to_the_queue_that_its_actor_declares_now(
    stub_broker, stub_durable, ran, next_deploy, work, clock, monitor
):
    @durable_actor(queue_name="old")
    def charge(order_id):
        ran.append(order_id)

    charge.send(42)
    clock.move(hours=1)

    broker = next_deploy()

    @durable_actor(queue_name="new", actor_name="charge")
    def moved(order_id):
        ran.append(("moved", order_id))

    assert monitor.run_once().recovered == 1
    assert set(broker.queues) == {"new", "new.DQ"}
    assert broker.queues["new"].qsize() == 1
    work()
    assert ran == [("moved", 42)]


@pytest.mark.failure(8)
def test_a_delayed_message_that_was_lost_is_sent_after_its_eta_without_a_delay(
    broker, durable, declare, ran, watch, clock, lose_and_recover, work, audit_of
):
    charge = declare()
    message = charge.send_with_options(args=(42,), delay=timedelta(hours=2))
    watcher = watch(broker)
    assert lose_and_recover(hours=2, minutes=10, seconds=55) == 0
    assert lose_and_recover(seconds=5) == 1
    [sent] = watcher.enqueued
    assert sent.queue_name == "default"
    assert "eta" not in sent.options
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert audit.scheduled_at - audit.created_at == timedelta(hours=2)
    assert (audit.state, audit.enqueue_count) == ("completed", 2)


def test_a_lost_retry_is_sent_without_what_belonged_to_that_copy(
    broker, durable, watch, running_worker, lose_and_recover, work, audit_of, eventually
):
    runs = []

    @durable_actor(min_backoff=3_600_000)
    def charge(order_id):
        runs.append(order_id)
        if len(runs) == 1:
            raise RuntimeError("no luck")

    watcher = watch(broker)
    message = charge.send(42)
    with running_worker():
        eventually(lambda: audit_of(message).failure_count == 1)
        eventually(lambda: len(watcher.enqueued) == 2)
    copy = watcher.enqueued[1]
    assert {"retries", "traceback"} <= copy.options.keys()
    epoch = audit_of(message).epoch

    assert lose_and_recover(minutes=11) == 0  # the retry is meant to come in half an hour or later
    assert lose_and_recover(hours=3) == 1
    sent = watcher.enqueued[-1]
    assert sent.queue_name == "default"
    assert sent.options.keys() & {"eta", "retries", "traceback", "durable_claim_id"} == set()
    work()
    assert runs == [42, 42]
    audit = audit_of(message)
    assert (audit.state, audit.epoch) == ("completed", epoch + 1)


def test_a_copy_that_was_not_lost_after_all_does_not_run_beside_the_re_sent_one(
    broker, durable, declare, ran, clock, monitor, work, audit_of
):
    message = declare().send(42)
    for _ in range(3):
        clock.move(hours=2)
        assert monitor.run_once().recovered == 1
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.enqueue_count, audit.start_count) == ("completed", 4, 1)


def test_what_a_re_sent_job_sends_itself_is_sent_once(broker, durable, lose_and_recover, work):
    ran = []

    @durable_actor
    def add(a, b):
        ran.append((a, b))
        return a + b

    dramatiq.pipeline([add.message(1, 2), add.message(4)]).run()
    assert lose_and_recover() == 1
    work()
    assert ran == [(1, 2), (4, 3)]
