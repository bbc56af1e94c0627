"""Somebody else's transaction holds the row of one audit locked: everybody passes by."""

import threading
import time
from urllib.parse import urlsplit

import pytest

from dramatiq_durable import durable_actor
from dramatiq_durable.errors import AuditLocked

pytestmark = pytest.mark.failure(46)

# The lock timeout is a second and a statement is tried a few times.
SOON = 8  # seconds


@pytest.fixture
def durable(stub_broker, server_url, make_durable):
    """With a table so large that the database goes by its indexes, and locks no more rows than it must."""
    durable = make_durable(stub_broker, server_url)
    audit = durable.store.audit
    audit.insert_many(
        {
            "namespace": "another",
            "message_id": f"message {number}",
            "actor_name": "charge",
            "queue_name": "default",
            "state": "completed",
            "payload": b"",
            "job_timeout": 1,
            "lease": 1,
            "backoff": 1,
        }
        for number in range(1_000)
    ).execute()
    verb = {"mysql": "ANALYZE TABLE"}.get(urlsplit(server_url).scheme, "ANALYZE")
    durable.database.execute_sql(f"{verb} durable_audits").close()
    durable.database.close()
    return durable


@pytest.fixture
def lock(server_url, console_of):
    """``lock(message, …)``: audits that another transaction locks until what this returns is called."""
    console = console_of(server_url)
    row = "SELECT id FROM durable_audits WHERE message_id = %s FOR UPDATE"

    def lock(*messages):
        console.execute("BEGIN")
        for message in messages:
            console.one(row, message.message_id)
        return lambda: console.execute("ROLLBACK")

    return lock


def test_a_job_whose_audit_is_locked_waits_while_the_others_run(
    durable, lock, running_worker, eventually, audit_of
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    held_up = charge.send("held up")
    others = [charge.send(order_id) for order_id in range(5)]
    unlock = lock(held_up)
    with running_worker(threads=2):
        eventually(lambda: len(ran) == len(others), timeout=SOON)
        assert durable.flush()
        assert {audit_of(message).state for message in others} == {"completed"}
        assert "held up" not in ran
        unlock()
        eventually(lambda: "held up" in ran)
    assert durable.flush()
    audit = audit_of(held_up)
    assert (audit.state, audit.start_count, audit.failure_count) == ("completed", 1, 0)


def test_a_locked_audit_does_not_keep_the_leases_of_others_from_being_renewed(
    durable, lock, running_worker, eventually, audit_of
):
    begun, end = threading.Barrier(3), threading.Event()

    @durable_actor(heartbeat_interval=100)
    def charge():
        begun.wait(10)
        assert end.wait(20)

    held_up, other = charge.send(), charge.send()
    with running_worker(threads=2):
        begun.wait(10)
        unlock = lock(held_up)
        before = audit_of(other).due_at
        eventually(lambda: audit_of(other).due_at > before, timeout=SOON)
        unlock()
        before = audit_of(held_up).due_at
        eventually(lambda: audit_of(held_up).due_at > before, timeout=SOON)
        end.set()
    assert durable.flush()
    assert {audit_of(message).state for message in (held_up, other)} == {"completed"}


@pytest.mark.parametrize("server_url", ["mariadb"], indirect=True)
def test_a_completion_whose_audit_is_locked_holds_up_neither_completions_nor_renewals(
    durable, lock, running_worker, eventually, audit_of
):
    begun, end_one, end_all = threading.Barrier(4), threading.Event(), threading.Event()

    @durable_actor(heartbeat_interval=100)
    def charge(name):
        begun.wait(10)
        assert (end_all if name == "runs on" else end_one).wait(20)

    held_up, other, runs_on = (charge.send(name) for name in ("held up", "other", "runs on"))
    with running_worker(threads=3):
        begun.wait(10)
        unlock = lock(held_up)
        end_one.set()
        eventually(lambda: audit_of(other).state == "completed", timeout=SOON)
        before = audit_of(runs_on).due_at
        eventually(lambda: audit_of(runs_on).due_at > before, timeout=SOON)
        unlock()
        end_all.set()
        eventually(lambda: audit_of(held_up).state == "completed")
    assert durable.flush()
    assert audit_of(runs_on).state == "completed"
    assert audit_of(held_up).start_count == 1


@pytest.mark.parametrize("server_url", ["mariadb"], indirect=True)
def test_six_completions_whose_audits_are_locked_let_no_lease_run_out(
    durable, lock, running_worker, eventually, audit_of
):
    begun, end_six, end_last = threading.Barrier(8), threading.Event(), threading.Event()

    @durable_actor(heartbeat_interval=1_000)
    def charge(name):
        begun.wait(10)
        assert (end_last if name == "runs on" else end_six).wait(60)

    runs_on, *six = (charge.send(name) for name in ["runs on", *range(6)])
    with running_worker(threads=7):
        begun.wait(10)
        unlock = lock(*six)
        end_six.set()
        for _ in range(4):
            before = audit_of(runs_on).due_at
            eventually(lambda before=before: audit_of(runs_on).due_at > before, timeout=4)
        unlock()
        end_last.set()
    assert durable.flush()
    assert {audit_of(message).state for message in (*six, runs_on)} == {"completed"}


LOCK_TABLE = {
    "postgresql": ("BEGIN; LOCK TABLE durable_audits IN ACCESS EXCLUSIVE MODE", "ROLLBACK"),
    "mysql": ("LOCK TABLES durable_audits WRITE", "UNLOCK TABLES"),
}


def test_keeper_and_monitor_wait_a_second_for_a_table_that_somebody_changes(
    server_url, durable, console_of
):
    @durable_actor
    def charge():
        pass

    message = charge.send()
    store = durable.store.reserved()
    held = store.claim(message.message_id, 0, "claim", worker="test")
    console = console_of(server_url)
    lock, unlock = LOCK_TABLE[urlsplit(server_url).scheme]
    console.execute(lock)
    began = time.monotonic()
    with pytest.raises(AuditLocked):
        store.heartbeat([held])
    assert time.monotonic() - began < SOON
    console.execute(unlock)
    assert store.heartbeat([held]) == set()


def test_a_monitor_recovers_the_others_in_the_pass_that_meets_a_locked_audit(
    stub_broker, durable, lock, monitor, clock, work, audit_of
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    held_up = charge.send("held up")
    others = [charge.send(order_id) for order_id in range(3)]
    stub_broker.flush_all()
    clock.move(hours=1)
    unlock = lock(held_up)
    began = time.monotonic()
    assert monitor.run_once().recovered == len(others)
    assert time.monotonic() - began < SOON
    work()
    assert sorted(ran) == [0, 1, 2]
    unlock()
    assert monitor.run_once().recovered == 1
    work()
    assert ran[-1] == "held up"
    assert audit_of(held_up).state == "completed"
