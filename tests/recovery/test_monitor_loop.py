"""``run()`` and ``stop()``: what is logged, and how it ends."""

import logging
import threading
import time

import pytest

from dramatiq_durable import Monitor, durable_actor


@pytest.fixture
def run():
    """``run(monitor)``: its ``run()`` in a thread, at the latest stopped with the test."""
    started = []

    def run(monitor):
        thread = threading.Thread(target=monitor.run)
        started.append((monitor, thread))
        thread.start()
        return thread

    yield run
    for monitor, thread in started:
        monitor.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


def own_records(caplog):
    return [r for r in caplog.records if r.name.startswith("dramatiq_durable")]


@pytest.mark.parity(29)
def test_a_pass_logs_what_it_did_and_nothing_when_there_was_nothing(
    stub_broker, stub_durable, declare, clock, run, passes, eventually, caplog
):
    caplog.set_level(logging.INFO)
    charge = declare()
    charge.send(42)
    charge.send(43)
    run(Monitor(stub_broker, interval=0.01))
    passes(3)
    assert own_records(caplog) == []

    clock.move(hours=1)
    [record] = eventually(lambda: own_records(caplog))
    assert record.levelno == logging.INFO
    assert "recovered 2" in record.getMessage().lower()
    passes(3)
    assert own_records(caplog) == [record]


@pytest.mark.parity(29)
def test_stop_ends_the_wait_between_two_passes_at_once(
    stub_broker, stub_durable, declare, clock, run, eventually
):
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    monitor = Monitor(stub_broker, interval=600)
    thread = run(monitor)
    eventually(lambda: stub_broker.queues["default"].qsize() == 1)
    monitor.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parity(29)
@pytest.mark.parametrize(("batch_size", "sent"), [(1, 1), (2, 2), (3, 3), (500, 3)])
def test_stop_lets_the_pass_be_finished_but_begins_no_other_batch(
    gate, sqlite_db, make_durable, declare, ran, work, clock, run, audits, batch_size, sent
):
    durable = make_durable(gate, sqlite_db)
    charge = declare()
    for order_id in range(3):
        charge.send(order_id)
    gate.flush_all()
    clock.move(hours=1)

    gate.opened.clear()
    gate.reached.clear()
    monitor = Monitor(gate, interval=600, batch_size=batch_size, max_rate=1_000_000)
    thread = run(monitor)
    assert gate.reached.wait(30)
    monitor.stop()
    gate.opened.set()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert gate.queues["default"].qsize() == sent
    found = sorted(audits(durable), key=lambda audit: audit.id)
    waits = [(audit.due_at - audit.enqueued_at).total_seconds() / 60 for audit in found]
    assert waits == [10 + 8] * sent + [10 + 1] * (3 - sent)
    work()
    assert sorted(ran) == list(range(sent))


def test_a_pass_that_is_cut_logs_how_many_stale_audits_it_has_left(
    gate, sqlite_db, make_durable, declare, clock, run, caplog
):
    caplog.set_level(logging.INFO)
    make_durable(gate, sqlite_db)
    charge = declare()
    for order_id in range(5):
        charge.send(order_id)
    gate.flush_all()
    clock.move(hours=1)
    gate.opened.clear()
    gate.reached.clear()
    monitor = Monitor(gate, batch_size=2)
    thread = run(monitor)
    assert gate.reached.wait(30)
    monitor.stop()
    gate.opened.set()
    thread.join(timeout=30)
    [record] = own_records(caplog)
    assert record.getMessage() == "Recovered 2, dead 0, deleted 0, failed 0; 3 to go."


@pytest.mark.parity(29)
def test_the_pause_between_passes_is_the_interval(stub_broker, stub_durable, run, passes):
    run(Monitor(stub_broker, interval=0.2))
    passes(1)
    begun = time.monotonic()
    passes(4)
    assert time.monotonic() - begun >= 4 * 0.2 - 0.1


def test_a_stopped_monitor_makes_no_pass(stub_broker, stub_durable, declare, clock):
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    monitor = Monitor(stub_broker)
    monitor.stop()
    monitor.run()
    assert stub_broker.queues["default"].qsize() == 0


@pytest.mark.failure(32)
@pytest.mark.parity(27)
def test_the_loop_goes_on_beside_an_audit_that_cannot_be_sent(
    stub_broker, stub_durable, sqlite_db, declare, clock, run, passes, eventually
):
    declare().send(42)
    with sqlite_db.connection_context():
        sqlite_db.execute_sql("UPDATE durable_audits SET payload = x'00'")

    @durable_actor
    def other():
        pass

    other.send()
    stub_broker.flush_all()
    clock.move(hours=1)
    run(Monitor(stub_broker, interval=0.01))
    eventually(lambda: stub_broker.queues["default"].qsize() == 1)
    passes(3)
