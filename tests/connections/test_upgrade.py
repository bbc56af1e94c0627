"""A table of the first release, as its `schema sql` printed it, with rows in every state."""

import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import peewee
import pytest

from dramatiq_durable import DurableMiddleware, Monitor, durable_actor
from dramatiq_durable.errors import SchemaMismatch
from tests.support.commands import command_for

pytestmark = pytest.mark.failure(43)

FIRST_RELEASE = Path(__file__).parent / "first_release"

TABLE = "durable_audits"
COLUMNS = (
    "namespace", "message_id", "actor_name", "queue_name", "state", "epoch", "claim_id", "due_at",
    "scheduled_at", "created_at", "enqueued_at", "started_at", "finished_at", "enqueue_count",
    "start_count", "crash_count", "failure_count", "requeue_count", "job_timeout", "lease",
    "backoff", "broker_message_id", "worker", "last_error", "payload",
)  # fmt: skip

SECOND = 10**6  # of the columns with times
HOUR = 3_600 * SECOND


@pytest.fixture
def command(monkeypatch, stub_broker):
    """The command on the test's broker."""
    return command_for(monkeypatch, stub_broker)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(stub_broker, db, database_url, ran):
    """An actor of this version, on a table of the first release."""
    ddl = (FIRST_RELEASE / f"{urlsplit(database_url).scheme}.sql").read_text()
    with db.connection_context():
        for statement in ddl.removesuffix(";\n").split(";\n"):
            db.execute_sql(statement)
    durable = DurableMiddleware(db)
    stub_broker.add_middleware(durable)

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    yield charge
    durable.store.connections.close()


@pytest.fixture
def insert(db, charge):
    """``insert(order_id, **columns)``: an audit as the first release wrote it, an hour ago; its message."""

    def insert(order_id, **columns):
        message = charge.message(order_id)
        then = time.time_ns() // 1_000 - HOUR
        row = {
            **dict.fromkeys(COLUMNS),
            **{name: 0 for name in COLUMNS if name.endswith("_count")},
            "namespace": "dramatiq",
            "message_id": message.message_id,
            "actor_name": "charge",
            "queue_name": "default",
            "state": "pending",
            "epoch": 0,
            **dict.fromkeys(("scheduled_at", "created_at", "enqueued_at"), then),
            "enqueue_count": 1,
            "job_timeout": 600 * SECOND,
            "lease": 40 * SECOND,
            "backoff": 60 * SECOND,
            "payload": message.encode(),
            **columns,
        }
        with db.connection_context():
            peewee.Table(TABLE, COLUMNS).bind(db).insert(row).execute()
        return message

    return insert


@pytest.fixture
def rows(insert, stub_broker):
    """One in each state, by the name that is the argument of its job."""
    now = time.time_ns() // 1_000
    ran_once = {"epoch": 1, "start_count": 1, "claim_id": uuid.uuid4().hex, "worker": "host:1"}
    finished = {**ran_once, "started_at": now - HOUR, "finished_at": now - HOUR}
    messages = {
        "lost": insert("lost", due_at=now - HOUR // 2),
        "waits": insert("waits", due_at=now + HOUR),
        "crashed": insert("crashed", state="running", due_at=now - HOUR // 2, **ran_once),
        "completed": insert("completed", state="completed", **{**finished, "payload": b""}),
        "dead": insert("dead", state="dead", last_error="ValueError: no", **finished),
        "cancelled": insert("cancelled", state="cancelled", **finished),
    }
    waits = messages["waits"]
    stamps = {"durable_epoch": 0, "durable_message_id": waits.message_id}
    stub_broker.queues["default"].put(waits.copy(options=stamps).encode())
    return messages


def described(db, table=TABLE):
    """The columns and indexes of *table*."""
    with db.connection_context():
        columns = {(c.name, c.data_type, c.null, c.primary_key) for c in db.get_columns(table)}
        indexes = {(i.name, tuple(i.columns), i.unique) for i in db.get_indexes(table)}
    return columns, indexes


@pytest.mark.usefixtures("rows")
def test_neither_worker_nor_monitor_starts_on_it_and_both_name_the_command(
    stub_broker, running_worker
):
    with pytest.raises(SchemaMismatch, match="`dramatiq-durable schema migrate"), running_worker():
        pass
    with pytest.raises(SchemaMismatch, match="`dramatiq-durable schema migrate"):
        Monitor(stub_broker).run()


def test_after_the_migration_the_jobs_of_every_state_are_worked_off(
    rows, stub_broker, command, work, ran, audit_of
):
    done = command("schema migrate")
    assert (done.exit_code, done.stderr) == (0, "")

    assert Monitor(stub_broker).run_once().recovered == 2
    work()
    assert sorted(ran) == ["crashed", "lost", "waits"]
    ids = [rows[name].message_id for name in ("dead", "cancelled")]
    assert command("retry", *ids).stdout == "retried 2\n"
    assert Monitor(stub_broker).run_once().recovered == 2
    work()
    assert sorted(ran) == ["cancelled", "crashed", "dead", "lost", "waits"]
    assert {audit_of(message).state for message in rows.values()} == {"completed"}
    assert audit_of(rows["crashed"]).crash_count == 1


@pytest.mark.usefixtures("rows")
def test_after_the_migration_the_table_is_as_a_new_one(db, command):
    assert command("schema migrate").exit_code == 0
    migrated = described(db)
    with db.connection_context():
        db.execute_sql(f"DROP TABLE {TABLE}")
    assert command("schema create").exit_code == 0
    assert migrated == described(db)


@pytest.mark.usefixtures("rows")
def test_after_the_migration_monitors_are_seen(stub_broker, command):
    assert command("schema migrate").exit_code == 0
    monitor = Monitor(stub_broker)
    monitor.liveness.passed(monitor.run_once())
    done = command("doctor")
    assert (done.exit_code, "monitor: " in done.stdout) == (0, True)


def test_no_row_is_changed(rows, db, command):
    names = ", ".join(("id", *COLUMNS))

    def contents():
        with db.connection_context():
            return list(db.execute_sql(f"SELECT {names} FROM {TABLE} ORDER BY id"))

    before = contents()
    assert len(before) == len(rows)
    assert command("schema migrate").exit_code == 0
    assert contents() == before


@pytest.mark.usefixtures("rows")
def test_while_older_workers_go_on_a_row_may_still_be_written_without_the_new_columns(
    insert, command, stub_broker, work, ran
):
    assert command("schema migrate").exit_code == 0
    insert("of the older sender", due_at=1)
    assert Monitor(stub_broker).run_once().recovered == 3
    work()
    assert "of the older sender" in ran


@pytest.mark.usefixtures("charge")
def test_the_sql_of_a_dry_run_executed_by_hand_is_the_migration(db, command):
    before = described(db)
    printed = command("schema migrate", "--dry-run")
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert described(db) == before
    with db.connection_context():
        for statement in printed.stdout.removesuffix(";\n").split(";\n"):
            db.execute_sql(statement)
    assert command("schema check").exit_code == 0
    assert command("schema migrate", "--dry-run").stdout == ""
