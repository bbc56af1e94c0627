"""doctor: what is wrong with the tables, the monitors, the broker."""

import json

import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Retries

from dramatiq_durable import DurableMiddleware, Monitor
from dramatiq_durable.cli.doctor import CHECKS


@pytest.fixture
def wrong(command):
    """``wrong(*args)``: the lines of what is not fine; the exit code is as they say."""

    def run(*args):
        done = command("doctor", *args)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("fine ")]
        assert (done.exit_code, done.stderr) == (1 if lines else 0, "")
        assert all(line.startswith("wrong ") for line in lines)
        return [line.split(maxsplit=1)[1] for line in lines]

    return run


def test_where_all_is_fine_each_check_says_so(command, charge, seen):
    seen()
    done = command("doctor")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [(state, check) for state, check, _ in lines] == [
        ("fine", "schema:"), ("fine", "schema:"), ("fine", "clock:"), ("fine", "monitor:"),
        ("fine", "stale:"), ("fine", "broker:"), ("fine", "retries:"), ("fine", "options:"),
    ]  # fmt: skip


def test_it_says_it_to_programs_too(command, charge, seen):
    seen()
    done = command("doctor", "--json")
    assert done.exit_code == 0
    findings = json.loads(done.stdout)
    assert {each["state"] for each in findings} == {"fine"}
    assert {each["advice"] for each in findings} == {None}
    assert {each["check"] for each in findings} == CHECKS.keys() - {"confirms"}


def test_with_a_monitor_that_runs_all_is_fine(stub_broker, charge, wrong):
    assert len(wrong()) == 1
    monitor = Monitor(stub_broker)
    monitor.liveness.passed(monitor.run_once())
    assert wrong() == []


def test_that_no_monitor_was_ever_seen_is_said_with_the_command_to_run(wrong, charge):
    assert wrong() == [
        "monitor: none was ever seen; run `dramatiq-durable monitor shop:broker` on at least one machine"
    ]


@pytest.mark.parametrize(
    ("interval", "options", "ago", "missed"),
    [
        (1, (), 55, False),
        (1, (), 65, True),
        (600, (), 655, False),
        (600, (), 665, True),
        (1, ("--unseen", "10m"), 590, False),
        (1, ("--unseen", "10m"), 610, True),
    ],
)
def test_a_monitor_that_was_not_seen_for_long_is_missed(
    wrong, charge, seen, clock, interval, options, ago, missed
):
    seen(interval)
    clock.move(seconds=ago)
    found = wrong(*options)
    assert bool(found) == missed
    for line in found:
        assert line.startswith("monitor: none was seen for 0:")
        assert "the last was host:7, and was not stopped as it should be" in line


def test_one_that_was_stopped_is_missed_after_a_while(wrong, charge, seen, durable, clock):
    durable.monitors.stop(seen(interval=600))
    clock.move(seconds=55)
    assert wrong() == []
    clock.move(seconds=10)
    [line] = wrong()
    assert "then it was stopped" in line


def test_one_monitor_that_runs_is_enough(wrong, charge, seen, clock):
    seen()
    clock.move(hours=1)
    seen()
    assert wrong() == []


@pytest.mark.parametrize(
    ("interval", "options", "late", "overlooked"),
    [
        (1, (), 4 * 60, False),
        (1, (), 6 * 60, True),
        (600, (), 14 * 60, False),
        (600, (), 16 * 60, True),
        (1, ("--stale", "1h"), 59 * 60, False),
        (1, ("--stale", "1h"), 61 * 60, True),
    ],
)
def test_what_has_been_stale_for_long_is_overlooked(
    wrong, charge, seen, clock, interval, options, late, overlooked
):
    charge.send(1)
    clock.move(minutes=11, seconds=late)
    seen(interval)
    found = wrong(*options)
    assert bool(found) == overlooked
    for line in found:
        assert "the oldest stale audit is so for" in line
        assert "`dramatiq-durable list shop:broker --stale`" in line


@pytest.mark.failure(43)
def test_a_schema_that_differs_is_said(wrong, charge, seen, durable, sqlite_db):
    seen()
    sqlite_db.execute_sql("ALTER TABLE durable_audits DROP COLUMN signature")
    sqlite_db.execute_sql("DROP INDEX durable_audits_due")
    sqlite_db.close()
    durable.store.connections.close()
    migrate = "; run `dramatiq-durable schema migrate shop:broker`"
    assert wrong() == [
        f"schema: durable_audits: the column signature is missing{migrate}",
        f"schema: durable_audits: the index durable_audits_due is missing{migrate}",
    ]


@pytest.mark.failure(43)
def test_without_the_table_of_monitors_all_else_is_looked_at(wrong, charge, sqlite_db, durable):
    sqlite_db.execute_sql("DROP TABLE durable_monitors")
    sqlite_db.close()
    durable.store.connections.close()
    schema, monitor = wrong()
    assert schema.startswith("schema: durable_monitors: the table is missing; run `")
    assert monitor.startswith("monitor: which ones run is not known without the table")


@pytest.mark.failure(43)
def test_without_any_table_it_says_so(command_on, sqlite_url):
    broker = StubBroker()
    durable = DurableMiddleware(sqlite_url)
    broker.add_middleware(durable)
    done = command_on(broker)("doctor")
    assert done.exit_code == 1
    assert "durable_audits: the table is missing" in done.stdout
    durable.store.connections.close()


def test_a_broker_without_retries_is_said(command_on, sqlite_db, make_durable, seen):
    broker = StubBroker(middleware=[])
    seen(of=make_durable(broker, sqlite_db))
    done = command_on(broker)("doctor")
    assert done.exit_code == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert "without Dramatiq's Retries" in line
    broker.add_middleware(Retries())
    assert command_on(broker)("doctor").exit_code == 0


def test_a_check_may_be_skipped_and_no_other_name(command_on, sqlite_db, make_durable):
    broker = StubBroker(middleware=[])
    make_durable(broker, sqlite_db)
    command = command_on(broker)
    assert command("doctor", "--skip", "retries").exit_code == 1
    done = command("doctor", "--skip", "retries", "--skip", "monitor")
    assert (done.exit_code, "retries" in done.stdout) == (0, False)
    assert command("doctor", "--skip", "retrys").exit_code == 2
