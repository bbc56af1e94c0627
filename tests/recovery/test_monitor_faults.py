"""One bad audit stops no pass; a message that cannot be sent is recorded and set aside."""

from datetime import timedelta

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Monitor, durable_actor


@pytest.fixture
def corrupt(sqlite_db):
    """``corrupt(message, payload)``: overwrite what is to be sent."""

    def corrupt(message, payload):
        with sqlite_db.connection_context():
            changed = sqlite_db.execute_sql(
                "UPDATE durable_audits SET payload = ? WHERE message_id = ?",
                (payload, message.message_id),
            )
            assert changed.rowcount == 1

    return corrupt


@pytest.fixture
def stale_orders(stub_broker, stub_durable, declare, clock):
    """``stale_orders(count)``: messages that the broker has lost, stale one second after the other."""

    def stale_orders(count):
        charge = declare()
        delays = range(0, 1_000 * count, 1_000)
        sent = [
            charge.send_with_options(args=(order_id,), delay=delay)
            for order_id, delay in enumerate(delays)
        ]
        stub_broker.flush_all()
        clock.move(hours=1)
        return sent

    return stale_orders


@pytest.mark.failure(32)
@pytest.mark.parity(27)
@pytest.mark.parametrize(
    "payload",
    [b"", b"\0\xff not json", b"{}", b"[]", b'"text"', b"null", b'{"actor_name": "charge"}'],
)
def test_a_payload_that_is_no_message_is_recorded_and_set_aside_and_the_others_are_sent(
    stale_orders, corrupt, ran, work, clock, monitor, audit_of, payload
):
    sent = stale_orders(3)
    corrupt(sent[0], payload)
    done = monitor.run_once()
    assert (done.recovered, done.failed) == (2, 1)
    assert audit_of(sent[0]).last_error
    work()
    assert sorted(ran) == [1, 2]

    assert monitor.run_once().failed == 0
    clock.move(minutes=7, seconds=50)
    assert monitor.run_once().failed == 0
    clock.move(seconds=10)
    assert monitor.run_once().failed == 1
    audit = audit_of(sent[0])
    assert (audit.state, audit.enqueue_count, bytes(audit.payload)) == ("pending", 3, payload)


@pytest.mark.failure(32)
@pytest.mark.failure(26)
@pytest.mark.parity(27)
def test_a_message_whose_queue_is_unknown_is_recorded_and_set_aside_and_runs_when_it_is_known(
    stub_broker, stub_durable, ran, next_deploy, work, clock, monitor, audit_of
):
    @durable_actor(queue_name="old")
    def charge(order_id):
        ran.append(order_id)

    @durable_actor(queue_name="old")
    def keep(order_id):
        ran.append(order_id)

    gone = charge.send("gone")
    clock.move(seconds=1)
    kept = keep.send("kept")
    clock.move(hours=1)

    next_deploy()
    durable_actor(actor_name="keep", queue_name="new")(ran.append)
    done = Monitor(dramatiq.get_broker()).run_once()
    assert (done.recovered, done.failed) == (1, 1)
    work()
    assert ran == ["kept"]
    assert audit_of(kept).state == "completed"
    audit = audit_of(gone)
    assert audit.state == "pending"
    assert "old" in audit.last_error

    durable_actor(actor_name="charge", queue_name="new")(ran.append)
    clock.move(minutes=8)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["kept", "gone"]


class Picky(dramatiq.Middleware):
    """Refuses one order, as a middleware of the application's own may."""

    def before_enqueue(self, broker, message, delay):
        if message.args == (0,):
            raise dramatiq.middleware.MiddlewareError("not this one")


@pytest.mark.failure(32)
def test_a_message_that_only_this_broker_refuses_does_not_look_like_an_outage(
    stub_broker, stale_orders, ran, work, monitor, audit_of
):
    sent = stale_orders(3)
    stub_broker.add_middleware(Picky())
    done = monitor.run_once()
    assert (done.recovered, done.failed, done.outage) == (2, 1, False)
    assert "not this one" in audit_of(sent[0]).last_error
    work()
    assert sorted(ran) == [1, 2]


class HangsUp(StubBroker):
    """Ends the connection at a certain message, as RabbitMQ does at one that is too large."""

    def enqueue(self, message, *, delay=None):
        if message.args == ("large",):
            raise dramatiq.errors.ConnectionClosed("message size is larger than the maximum")
        return super().enqueue(message, delay=delay)


@pytest.mark.failure(32)
def test_a_message_at_which_the_broker_hangs_up_each_time_does_not_keep_the_others_back(
    use, sqlite_db, make_durable, declare, ran, work, clock, monitor
):
    broker = use(HangsUp())
    make_durable(broker, sqlite_db)
    charge = declare()
    charge.send("large")
    for order_id in range(5):
        charge.send(order_id)
    broker.flush_all()
    clock.move(hours=1)
    recovered = monitor.run_once().recovered
    clock.move(minutes=2)
    recovered += monitor.run_once().recovered
    assert recovered == 5
    work()
    assert sorted(ran) == list(range(5))


def no_wait(count):
    raise ZeroDivisionError


@pytest.mark.failure(32)
@pytest.mark.parametrize(
    "later",
    [no_wait, lambda count: None, lambda count: 60, lambda count: timedelta.max],
    ids=["raises", "none", "a number", "too long for the column"],
)
def test_a_backoff_that_goes_wrong_later_sets_only_its_own_message_aside(
    stub_broker, stub_durable, declare, ran, work, clock, monitor, audit_of, later
):
    @durable_actor(backoff=lambda count: timedelta(0) if count == 1 else later(count))
    def wrong():
        pass

    bad = wrong.send()
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    done = monitor.run_once()
    assert (done.recovered, done.failed) == (1, 1)
    assert audit_of(bad).last_error
    work()
    assert ran == [42]


@pytest.mark.failure(32)
@pytest.mark.parametrize("options", [{"max_crashes": "x"}, {"job_timeout": "x"}, {"backoff": "x"}])
def test_options_of_a_stored_message_that_make_no_sense_stop_nobody_else(
    stale_orders, corrupt, ran, work, monitor, options
):
    sent = stale_orders(3)
    message = sent[0].copy(options=options)
    corrupt(sent[0], message.encode())
    done = monitor.run_once()
    assert done.recovered + done.failed == 3
    assert done.recovered >= 2
    work()
    assert {1, 2} <= set(ran)


@pytest.mark.failure(32)
def test_what_is_set_aside_is_logged_with_its_id_and_without_its_arguments(
    stub_broker, stub_durable, declare, clock, monitor, corrupt, caplog
):
    message = declare().send("top secret")
    corrupt(message, b'{"args": ["top secret"]')
    clock.move(hours=1)
    monitor.run_once()
    [record] = [r for r in caplog.records if r.name.startswith("dramatiq_durable")]
    assert message.message_id in record.getMessage()
    assert "top secret" not in caplog.text


@pytest.mark.failure(32)
def test_a_job_that_can_never_be_sent_ends_dead(
    stub_broker, stub_durable, declare, clock, monitor, corrupt, audit_of
):
    message = declare().send(42)
    corrupt(message, b"no message")
    for _ in range(30):
        clock.move(hours=6)
        monitor.run_once()
    assert audit_of(message).state == "dead"


@pytest.mark.failure(34)
def test_600_audits_in_long_backoff_do_not_keep_a_new_stale_one_waiting(
    stub_broker, stub_durable, declare, ran, work, clock, monitor
):
    @durable_actor(backoff=lambda count: timedelta(days=1))
    def patient():
        pass

    for _ in range(600):
        patient.send()
    declare().send("new")
    stub_broker.flush_all()
    clock.move(hours=1)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["new"]


def test_a_pass_goes_on_after_a_first_batch_of_nothing_but_bad_audits(
    stale_orders, corrupt, stub_broker, ran, work
):
    sent = stale_orders(7)
    for message in sent[:5]:
        corrupt(message, b"no message")
    done = Monitor(stub_broker, batch_size=2).run_once()
    assert (done.recovered, done.failed) == (2, 5)
    work()
    assert sorted(ran) == [5, 6]


@pytest.mark.failure(32)
@pytest.mark.parametrize("payload", ["text", 10**12, 1.5])
def test_a_payload_that_is_not_even_bytes_is_set_aside_and_the_others_are_sent(
    stale_orders, corrupt, monitor, audit_of, payload
):
    sent = stale_orders(3)
    corrupt(sent[0], payload)
    done = monitor.run_once()
    assert (done.recovered, done.failed) == (2, 1)
