"""How others see that a monitor is alive, and that it needs nobody to see it."""

import multiprocessing
import os
import time
from datetime import timedelta
from importlib.metadata import version

import pytest

from dramatiq_durable import Audit, Monitor, durable_actor
from dramatiq_durable.passes import Pass

from .conftest import running

MONITORS = "durable_monitors"


@pytest.fixture
def seen(stub_durable):
    """``seen()``: the monitors that say that they are there."""
    return stub_durable.monitors.seen


@pytest.fixture
def execute(stub_durable, sqlite_db):
    def run(sql):
        with sqlite_db.connection_context():
            sqlite_db.execute_sql(sql)

    return run


@pytest.fixture
def written(stub_durable, sqlite_db):
    """The statements about monitors since the fixture was asked for."""
    events = []

    def note(event):
        if MONITORS in event.sql and not event.sql.startswith("SELECT"):
            events.append(event.sql.split()[0])

    sqlite_db.query_hooks.append(note)
    yield events
    sqlite_db.query_hooks.remove(note)


def test_a_monitor_is_seen_while_it_runs_and_then_as_stopped(
    stub_broker, seen, eventually, declare, clock
):
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    assert seen() == []
    with running(Monitor(stub_broker, interval=0.25)):
        [one] = eventually(seen)
        assert not one.stopped
        assert one.ago < timedelta(seconds=30)
        assert (one.monitor.pid, one.monitor.host) == (os.getpid(), os.uname().nodename)
        assert one.monitor.version == version("dramatiq-durable")
        assert one.monitor.interval == timedelta(seconds=0.25)
        assert (one.monitor.recovered, one.monitor.outage) == (1, False)
    [one] = seen()
    assert one.stopped


def test_each_of_several_is_seen(stub_broker, seen, eventually):
    with running(*(Monitor(stub_broker, interval=0.01) for _ in range(3))):
        eventually(lambda: len(seen()) == 3)


def test_one_that_was_made_before_a_fork_is_seen_as_what_it_is_now(stub_broker, seen):
    monitor = Monitor(stub_broker)

    def child():
        monitor.liveness.passed(Pass())

    processes = [multiprocessing.get_context("fork").Process(target=child) for _ in range(2)]
    for process in processes:
        process.start()
        process.join()
    assert {one.monitor.pid for one in seen()} == {process.pid for process in processes}


def test_one_that_only_looks_is_not_seen(stub_broker, seen, health, passes):
    with running(Monitor(stub_broker, interval=0.001, dry_run=True, health_file=health)):
        passes(5)
    assert (seen(), health.exists()) == ([], False)


def test_passes_with_nothing_to_do_write_nothing_for_seconds(stub_broker, written, passes):
    started = time.monotonic()
    with running(Monitor(stub_broker, interval=0.001)):
        passes(50)
        so_far = list(written)
        lasted = time.monotonic() - started
    assert so_far[:3] == ["UPDATE", "INSERT", "DELETE"]
    assert len(so_far) - 3 <= lasted / 5


def test_it_is_written_again_every_few_seconds(
    stub_broker, written, passes, seen, monkeypatch, clock
):
    monkeypatch.setattr("dramatiq_durable.liveness.WRITTEN_EVERY", 0.0)
    with running(Monitor(stub_broker, interval=0.001)):
        passes(3)
        clock.move(minutes=1)
        passes(3)
        assert seen()[0].ago < timedelta(seconds=30)


@pytest.mark.failure(43)
def test_without_its_table_the_jobs_are_recovered_and_one_warning_says_what_to_do(
    stub_broker,
    stub_durable,
    declare,
    clock,
    eventually,
    execute,
    passes,
    said,
    monkeypatch,
    seen,
):
    monkeypatch.setattr("dramatiq_durable.liveness.TRIED_EVERY", 0.0)
    execute(f"DROP TABLE {MONITORS}")
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    with running(Monitor(stub_broker, interval=0.001)):
        eventually(lambda: stub_broker.queues["default"].qsize() == 1)
        passes(10)
        [warning] = said()
        assert "run `dramatiq-durable schema migrate BROKER`" in warning
        # The monitor need not be started again when it has been done.
        stub_durable.monitors.table.create()
        eventually(seen)
    assert said() == [warning]


def test_an_older_table_of_monitors_is_said_too(stub_broker, execute, passes, said):
    execute(f"ALTER TABLE {MONITORS} DROP COLUMN outage")
    with running(Monitor(stub_broker, interval=0.001)):
        passes(5)
    [warning] = said()
    assert "schema migrate" in warning


def test_whatever_goes_wrong_there_jobs_are_recovered(
    stub_broker, declare, clock, eventually, execute, said
):
    execute(
        f"CREATE TRIGGER refused BEFORE INSERT ON {MONITORS} BEGIN SELECT RAISE(ABORT, 'secret'); END"
    )
    declare().send(42)
    stub_broker.flush_all()
    clock.move(hours=1)
    with running(Monitor(stub_broker, interval=0.001)):
        eventually(lambda: stub_broker.queues["default"].qsize() == 1)
        [warning] = eventually(said)
    assert "IntegrityError" in warning
    assert "secret" not in warning


# The health file


@pytest.fixture
def health(tmp_path):
    """A file that a monitor touches."""
    return tmp_path / "monitor.health"


@pytest.fixture
def touched(health, eventually):
    """``touched()``: wait until it is touched once more."""

    def wait():
        os.utime(health, (1, 1))
        eventually(lambda: health.stat().st_mtime > 1)

    return wait


def test_the_file_is_touched_after_each_pass(
    stub_broker, stub_durable, health, touched, eventually
):
    with running(Monitor(stub_broker, interval=0.001, health_file=health)):
        eventually(health.exists)
        for _ in range(3):
            touched()


@pytest.mark.failure(33)
def test_an_outage_of_the_broker_is_no_reason_to_start_a_monitor_again(
    switchable, sqlite_db, make_durable, declare, health, touched, eventually, clock
):
    durable = make_durable(switchable, sqlite_db)
    switchable.error = ConnectionError()
    declare().send(42)
    clock.move(hours=1)
    with running(Monitor(switchable, interval=0.001, health_file=health)):
        eventually(lambda: [seen.monitor.outage for seen in durable.monitors.seen()] == [True])
        touched()


@pytest.mark.failure(21)
def test_it_is_not_touched_while_one_of_the_databases_does_not_answer(
    stub_broker, stub_durable, sqlite_db, tmp_path, health, touched, eventually, passes
):
    away = tmp_path / "away"
    far = sqlite_db.__class__(away / "far.db")
    own = type("Own", (Audit,), {"Meta": type("Meta", (), {"database": far})})
    durable_actor(actor_name="far", audit_model=own)(lambda: None)
    with running(Monitor(stub_broker, interval=0.001, health_file=health)):
        passes(20)
        assert not health.exists()
        # It is not healthy, but alive.
        assert stub_durable.monitors.seen()
        away.mkdir()
        stub_durable.create_tables()
        eventually(health.exists, timeout=60)
        touched()
    for store in stub_durable.stores():
        store.reserved().connections.close()


def test_a_file_that_cannot_be_touched_is_one_warning(
    stub_broker, stub_durable, tmp_path, passes, said
):
    with running(Monitor(stub_broker, interval=0.001, health_file=tmp_path / "gone" / "file")):
        passes(10)
    [warning] = said()
    assert "cannot be touched" in warning
    assert "No such file" in warning
