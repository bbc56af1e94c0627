"""The table of audits is missing, of another version, or made by many at once."""

import peewee
import pytest

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, Monitor, durable_actor
from dramatiq_durable.errors import DatabaseUnreachable, SchemaMismatch

pytestmark = pytest.mark.failure(43)

TABLE = "durable_audits"
INDEXES = {f"{TABLE}_{name}" for name in ("message_id", "due", "finished")}

SOURCE = """
    import os

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from dramatiq_durable import Audit, DurableMiddleware, durable_actor

    broker = StubBroker()
    durable = DurableMiddleware(os.environ["DATABASE_URL"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor
    def charge():
        pass
"""

WORKER = """
    import sys
    from dramatiq.cli import main, make_argument_parser
    sys.exit(main(make_argument_parser().parse_args(["app:broker", "-p", "1", "-t", "1"])))
"""

CREATE_AT_ONCE = """
    import multiprocessing
    from app import *

    PROCESSES = 6
    context = multiprocessing.get_context("fork")

    def create(together):
        for name in ("first_audits", "second_audits", "durable_audits"):
            Meta = type("Meta", (), {"database": durable.database, "table_name": name})
            model = type("Model", (Audit,), {"Meta": Meta})
            mine = DurableMiddleware(durable.database, audit_model=model)
            together.wait()
            mine.create_tables()

    together = context.Barrier(PROCESSES)
    processes = [context.Process(target=create, args=(together,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    charge.send()
    assert len(durable.store.list_audits()) == 1
"""


@pytest.fixture
def without_table(stub_broker, db):
    """A DurableMiddleware on an empty database."""
    durable = DurableMiddleware(db)
    stub_broker.add_middleware(durable)
    yield durable
    durable.store.connections.close()


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def rename(db):
    """``rename(column, name)`` in the table of audits."""
    quote = "`" if isinstance(db, peewee.MySQLDatabase) else '"'

    def rename(column, name):
        sql = f"ALTER TABLE {TABLE} RENAME COLUMN {quote}{column}{quote} TO {quote}{name}{quote}"
        db.execute_sql(sql)
        db.close()

    return rename


def test_without_its_table_neither_worker_nor_monitor_starts(
    stub_broker, without_table, running_worker
):
    with pytest.raises(SchemaMismatch, match="dramatiq-durable schema create"), running_worker():
        pass
    for run in (Monitor(stub_broker).run_once, Monitor(stub_broker).run):
        with pytest.raises(SchemaMismatch, match="dramatiq-durable schema create"):
            run()


def test_without_any_of_its_columns_neither_worker_nor_monitor_starts(
    stub_broker, durable, rename, running_worker
):
    columns = durable.store.audit._meta.sorted_field_names
    assert len(columns) > 20
    monitor = Monitor(stub_broker)
    for column in columns:
        rename(column, "another")
        durable.store.connections.close()
        with pytest.raises(SchemaMismatch, match="dramatiq-durable schema"), running_worker():
            pass
        with pytest.raises(SchemaMismatch, match="dramatiq-durable schema"):
            Monitor(stub_broker).run()
        rename("another", column)
    with running_worker():
        assert not monitor.run_once()
    rename("due_at", "another")
    with pytest.raises(SchemaMismatch, match="dramatiq-durable schema"):
        monitor.run()


@pytest.mark.failure(4)
def test_a_send_names_what_is_wrong_with_the_table(stub_broker, without_table, rename):
    @durable_actor
    def charge():
        pass

    def cause_of_the_failure():
        with pytest.raises(AuditWriteFailed) as caught:
            charge.send()
        assert isinstance(caught.value.__cause__, SchemaMismatch)
        assert isinstance(caught.value.__cause__.__cause__, peewee.PeeweeException)
        return str(caught.value.__cause__)

    assert "table of audits is missing" in cause_of_the_failure()
    without_table.create_tables()
    charge.send()
    rename("claim_id", "another")
    rename("epoch", "another_too")
    assert "lacks a column" in cause_of_the_failure()


@pytest.mark.failure(4)
def test_a_send_says_that_the_database_does_not_answer(stub_broker, tmp_path):
    stub_broker.add_middleware(DurableMiddleware(f"sqlite:///{tmp_path}/missing/audits.db"))

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed) as caught:
        charge.send()
    assert isinstance(caught.value.__cause__, DatabaseUnreachable)
    assert isinstance(caught.value.__cause__.__cause__, peewee.OperationalError)


def test_a_worker_process_ends_with_the_command_to_run(app, sqlite_url):
    done = app(SOURCE, DATABASE_URL=sqlite_url).python(WORKER)
    assert done.returncode != 0
    assert "dramatiq-durable schema create" in done.stderr


def test_columns_that_we_do_not_know_disturb_nobody(
    stub_broker, durable, db, monitor, clock, work, audits
):
    db.execute_sql(f"ALTER TABLE {TABLE} ADD COLUMN of_the_next_version VARCHAR(50)")
    db.execute_sql(f"ALTER TABLE {TABLE} ADD COLUMN counts INTEGER NOT NULL DEFAULT 7")
    db.close()
    durable.create_tables()

    @durable_actor(max_retries=1, min_backoff=1)
    def charge(order_id):
        if order_id == "failed" and audits(durable)[0].failure_count == 0:
            raise ValueError

    charge.send("lost")
    stub_broker.flush_all()
    clock.move(hours=1)
    assert monitor.run_once().recovered == 1
    charge.send("failed")
    work()
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2
    assert db.execute_sql(f"SELECT MIN(counts) FROM {TABLE}").fetchone()[0] == 7


def indexes(db):
    with db.connection_context():
        return {index.name for index in db.get_indexes(TABLE)} & INDEXES


def test_create_tables_may_be_called_again_and_keeps_what_is_there(durable, db, audits):
    @durable_actor
    def charge():
        pass

    charge.send()
    assert indexes(db) == INDEXES
    for _ in range(2):
        durable.create_tables()
    assert indexes(db) == INDEXES
    assert len(audits(durable)) == 1


def test_create_tables_makes_the_indexes_that_are_missing(durable, db):
    suffix = f" ON {TABLE}" if isinstance(db, peewee.MySQLDatabase) else ""
    for name in INDEXES:
        db.execute_sql(f"DROP INDEX {name}{suffix}")
    db.close()
    assert indexes(db) == set()
    durable.create_tables()
    assert indexes(db) == INDEXES


def test_six_processes_may_create_the_tables_at_once(app, database_url, db):
    done = app(SOURCE, DATABASE_URL=database_url).python(CREATE_AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert indexes(db) == INDEXES
