"""What a monitor tells Prometheus, of itself and of the audits that it looks after."""

import subprocess
import sys
import threading
import time

import pytest

from dramatiq_durable import Audit, Monitor, durable_actor
from dramatiq_durable.errors import MetricsNotServed, OptionError
from dramatiq_durable.passes import Pass
from tests.support import metrics
from tests.support.metrics import Scrape
from tests.support.servers import free_port

from .conftest import running

CHARGE = {"queue_name": "default", "actor_name": "charge"}


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def observed(port):
    """``observed(broker, …)``: a monitor that serves its metrics on *port*, and makes many passes."""

    def make(broker, **options):
        return Monitor(broker, **{"interval": 0.001, "prometheus_port": port, **options})

    return make


@pytest.fixture
def scrape(port, monkeypatch, eventually):
    """``scrape()``: what the monitor shows, as it is now."""
    monkeypatch.setattr("dramatiq_durable.readings.GOOD_FOR", 0.0)
    monkeypatch.setattr("dramatiq_durable.readings.SHARE", 0)

    return lambda: metrics.scrape(port)


@pytest.fixture
def shown(scrape, eventually):
    """``shown(name, value, **labels)``: wait until the sample has this value; what was shown then."""

    def wait(name, value, **labels):
        def look():
            made = scrape()
            return made if made(f"dramatiq_durable_{name}", **labels) == value else None

        return eventually(look, message=f"{name} {labels} = {value}")

    return wait


@pytest.fixture
def readings(sqlite_db):
    """The statements by which a monitor has read what audits there are."""
    seen = []

    def note(event):
        if "GROUP BY" in event.sql:
            seen.append(event.sql)

    sqlite_db.query_hooks.append(note)
    yield seen
    sqlite_db.query_hooks.remove(note)


@pytest.fixture
def hang(sqlite_db):
    """While it is not set, the database does not answer when it is asked what audits there are."""
    goes_on = threading.Event()

    def note(event):
        if "GROUP BY" in event.sql:
            assert goes_on.wait(60)

    sqlite_db.query_hooks.append(note)
    yield goes_on
    goes_on.set()
    sqlite_db.query_hooks.remove(note)


# What it has done


def test_what_has_not_happened_yet_is_zero(stub_broker, stub_durable, declare, observed, scrape):
    declare()
    with running(observed(stub_broker)):
        first = scrape()
    for what in ("recovered", "held", "dead", "failed"):
        assert first(f"dramatiq_durable_{what}_total", **CHARGE) == 0
    for alone in ("deleted_total", "failed_passes_total", "outage", "oldest_stale_seconds"):
        assert first(f"dramatiq_durable_{alone}") == 0
    assert first("dramatiq_durable_stale_audits", **CHARGE) == 0
    for state in ("pending", "running", "completed", "dead", "cancelled"):
        assert first("dramatiq_durable_audits", state=state, **CHARGE) == 0


def test_what_it_sends_again_is_counted_by_queue_and_actor(
    stub_broker, stub_durable, declare, observed, shown, clock
):
    mail = durable_actor(queue_name="mails", actor_name="mail")(print)
    for actor, times in ((declare(), 3), (mail, 2)):
        for number in range(times):
            actor.send(number)
    stub_broker.flush_all()
    clock.move(hours=1)
    with running(observed(stub_broker)):
        shown("recovered_total", 3, **CHARGE)
        shown("recovered_total", 2, queue_name="mails", actor_name="mail")


def test_what_it_holds_back_is_counted(
    stub_broker, stub_durable, declare, observed, shown, clock, work
):
    charge = declare()
    charge.send(1)
    work()
    charge.send(2)
    charge.send(3)
    clock.move(hours=1)
    with running(observed(stub_broker)):
        # The queue stands still: one message is sent again, to find out.
        shown("held_total", 1, **CHARGE)
        shown("recovered_total", 1, **CHARGE)


def test_what_it_gives_up_and_what_it_deletes_is_counted(
    stub_broker, stub_durable, declare, observed, shown, clock
):
    declare().send(1)
    stub_broker.flush_all()
    clock.move(hours=1)
    with running(observed(stub_broker)):
        shown("recovered_total", 1, **CHARGE)
        stub_broker.flush_all()
        clock.move(days=4)
        shown("dead_total", 1, **CHARGE)
        shown("audits", 1, state="dead", **CHARGE)
        clock.move(days=15)
        shown("deleted_total", 1)
        shown("audits", 0, state="dead", **CHARGE)


def test_what_cannot_be_sent_is_counted(
    stub_broker, stub_durable, sqlite_db, declare, observed, shown, clock
):
    declare().send(1)
    sqlite_db.execute_sql("UPDATE durable_audits SET payload = ?", (b"\xff",))
    stub_broker.flush_all()
    clock.move(hours=1)
    with running(observed(stub_broker)):
        shown("failed_total", 1, **CHARGE)
        shown("recovered_total", 0, **CHARGE)


@pytest.mark.failure(33)
def test_an_outage_of_the_broker_is_one_while_it_lasts(
    switchable, sqlite_db, make_durable, declare, observed, shown, clock
):
    make_durable(switchable, sqlite_db)
    switchable.error = ConnectionError()
    declare().send(42)
    clock.move(hours=1)
    with running(observed(switchable)):
        shown("outage", 1)
        switchable.error = None
        clock.move(hours=1)
        shown("outage", 0)
        shown("recovered_total", 1, **CHARGE)


def test_passes_are_timed_and_a_good_one_is_remembered(
    stub_broker, stub_durable, observed, scrape, passes
):
    began = time.time()
    with running(observed(stub_broker)):
        passes(3)
        first = scrape()
        passes(3)
        later = scrape()
    name = "dramatiq_durable_pass_duration_seconds"
    assert 2 <= first(f"{name}_count") < later(f"{name}_count")
    assert 0 < first(f"{name}_sum") < later(f"{name}_sum") < time.time() - began
    assert later(f"{name}_bucket", le="+Inf") == later(f"{name}_count")
    assert later(f"{name}_bucket", le="0.005") <= later(f"{name}_bucket", le="5.0")
    good_at = "dramatiq_durable_last_good_pass_timestamp_seconds"
    assert began - 1 <= first(good_at) < later(good_at) <= time.time() + 1


def test_the_numbers_of_a_pass_are_as_they_were():
    done = Pass()
    done.note("recovered", [])
    assert (str(done), repr(done), bool(done)) == (
        "recovered 0, dead 0, deleted 0, failed 0",
        "Pass(recovered=0, dead=0, deleted=0, failed=0, held=0, outage=False)",
        False,
    )


# What audits there are


def test_audits_are_counted_by_state_and_by_how_late_they_are(
    stub_broker, stub_durable, declare, observed, scrape, clock, work
):
    charge = declare()
    charge.send(1)
    work()
    charge.send(2)
    clock.move(hours=1)
    # It would send again what is stale; so it only looks.
    with running(observed(stub_broker, dry_run=True)):
        found = scrape()
    assert found("dramatiq_durable_database_up") == 1
    assert found("dramatiq_durable_audits", state="completed", **CHARGE) == 1
    assert found("dramatiq_durable_audits", state="pending", **CHARGE) == 1
    assert found("dramatiq_durable_audits", state="running", **CHARGE) == 0
    assert found("dramatiq_durable_stale_audits", **CHARGE) == 1
    late = found("dramatiq_durable_oldest_stale_seconds")
    assert 49 * 60 <= late < 49 * 60 + 60  # job_timeout and backoff are eleven minutes


def test_the_databases_are_read_at_most_every_five_seconds(
    stub_broker, stub_durable, declare, observed, port, readings
):
    declare().send(1)
    with running(observed(stub_broker)):
        began = time.monotonic()
        made = [metrics.scrape(port)]
        threads = [threading.Thread(target=lambda: made.append(Scrape(port))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made += [Scrape(port) for _ in range(5)]
        lasted = time.monotonic() - began
    assert len(readings) <= 1 + lasted / 5
    pending = [each("dramatiq_durable_audits", state="pending", **CHARGE) for each in made]
    assert pending == [1] * 14


def test_a_database_that_hangs_there_is_left_out_and_keeps_no_pass_from_its_work(
    stub_broker,
    stub_durable,
    declare,
    observed,
    scrape,
    shown,
    clock,
    hang,
    caplog,
    eventually,
    monkeypatch,
):
    monkeypatch.setattr("dramatiq_durable.readings.PATIENCE", 0.1)
    charge, name = declare(), "dramatiq_durable_recovered_total"
    with running(observed(stub_broker)):
        for _ in range(2):
            found = scrape()
            assert found("dramatiq_durable_database_up") == 0
            assert "dramatiq_durable_audits" not in found.names
            assert "dramatiq_durable_oldest_stale_seconds" not in found.names
            before = found(name, **CHARGE)
            charge.send(2)
            stub_broker.flush_all()
            clock.move(hours=1)
            eventually(lambda before=before: scrape()(name, **CHARGE) > before)
        hang.set()
        shown("database_up", 1)
        shown("audits", 2, state="pending", **CHARGE)
    assert not [each for each in caplog.records if "missing in the metrics" in each.getMessage()]


def test_one_that_hangs_holds_up_no_scrape_for_long_and_no_monitor_at_its_end(
    stub_broker, stub_durable, observed, scrape, hang
):
    with running(observed(stub_broker)):
        began = time.monotonic()
        assert scrape()("dramatiq_durable_database_up") == 0
        assert time.monotonic() - began < 5
        began = time.monotonic()
    assert time.monotonic() - began < 5


@pytest.mark.failure(21)
def test_of_two_databases_the_one_that_answers_is_shown(
    stub_broker,
    stub_durable,
    sqlite_db,
    declare,
    tmp_path,
    observed,
    shown,
    scrape,
    caplog,
    eventually,
):
    away = tmp_path / "away"
    far = sqlite_db.__class__(away / "far.db")
    own = type("Own", (Audit,), {"Meta": type("Meta", (), {"database": far})})
    own_charge = durable_actor(actor_name="far", audit_model=own)(print)
    declare().send(1)
    with running(observed(stub_broker)):
        found = shown("database_up", 0)
        assert found("dramatiq_durable_audits", state="pending", **CHARGE) == 1
        eventually(lambda: scrape()("dramatiq_durable_failed_passes_total") > 0)
        assert found("dramatiq_durable_last_good_pass_timestamp_seconds") == 0
        warnings = [
            each for each in caplog.records if "missing in the metrics" in each.getMessage()
        ]
        assert len(warnings) == 1
        away.mkdir()
        stub_durable.create_tables()
        own_charge.send(1)
        found = shown("database_up", 1)
        assert (
            found(
                "dramatiq_durable_audits", state="pending", queue_name="default", actor_name="far"
            )
            == 1
        )
    for store in stub_durable.stores():
        store.connections.close()


def test_tables_of_one_actor_are_added_up(
    stub_broker, stub_durable, sqlite_db, declare, observed, scrape
):
    own = type(
        "Own", (Audit,), {"Meta": type("Meta", (), {"database": sqlite_db, "table_name": "own"})}
    )
    declare().send(1)
    moved = durable_actor(actor_name="moved", audit_model=own)(print)
    stub_durable.create_tables()
    moved.send(2)
    sqlite_db.execute_sql("UPDATE own SET actor_name = 'charge'")
    with running(observed(stub_broker)):
        assert scrape()("dramatiq_durable_audits", state="pending", **CHARGE) == 2


@pytest.mark.failure(50)
def test_a_name_that_no_text_can_hold_spoils_no_scrape(
    stub_broker, stub_durable, sqlite_db, declare, observed, shown, clock
):
    charge = declare()
    charge.send(1)
    charge.send(2)
    sqlite_db.execute_sql("UPDATE durable_audits SET actor_name = 7 WHERE id = 1")
    sqlite_db.execute_sql("UPDATE durable_audits SET queue_name = 'a\"b\\c\nd{}' WHERE id = 2")
    stub_broker.flush_all()
    clock.move(hours=1)
    number = {"queue_name": "default", "actor_name": "7"}
    hostile = {"queue_name": 'a"b\\c\nd{}', "actor_name": "charge"}
    with running(observed(stub_broker)):
        # They are others than their payloads say.
        for labels in (number, hostile):
            found = shown("failed_total", 1, **labels)
            assert found("dramatiq_durable_audits", state="pending", **labels) == 1


# Where it is served


def test_the_port_is_free_again_when_it_has_stopped(
    stub_broker, stub_durable, observed, scrape, port
):
    for _ in range(2):
        monitor = observed(stub_broker)
        with running(monitor):
            assert scrape()("dramatiq_durable_database_up") == 1
        with pytest.raises(OSError, match="refused"):
            Scrape(port)


def test_a_port_that_is_taken_is_said_before_the_first_pass(
    stub_broker, stub_durable, observed, scrape, port, passes
):
    with running(observed(stub_broker)):
        scrape()
        with pytest.raises(MetricsNotServed, match=f"port {port} of '127.0.0.1': Address already"):
            observed(stub_broker).run()


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_cannot_be_is_refused(stub_broker, stub_durable, port):
    with pytest.raises(OptionError, match="prometheus_port"):
        Monitor(stub_broker, prometheus_port=port)


def test_without_a_port_prometheus_client_is_not_imported():
    code = """
import sys, threading
import dramatiq, peewee
from dramatiq.brokers.stub import StubBroker
from dramatiq_durable import DurableMiddleware, Monitor, durable_actor

broker = StubBroker()
durable = DurableMiddleware("sqlite:///:memory:")
broker.add_middleware(durable)
dramatiq.set_broker(broker)
durable.create_tables()
actor = durable_actor(lambda: None, actor_name="charge")
actor.send()
monitor = Monitor(broker, interval=0.001)
threading.Timer(0.1, monitor.stop).start()
monitor.run()
assert "prometheus_client" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
