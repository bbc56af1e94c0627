"""What keeps one audit, or one database, from being written holds up nothing else that the process holds."""

import gc
import logging
import threading

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from playhouse.db_url import connect

from dramatiq_durable import Audit, DurableMiddleware, durable_actor

BEAT = 50  # milliseconds
BEATS = 5

REFUSE = """
    CREATE TRIGGER refuse BEFORE UPDATE ON durable_audits
    WHEN NEW.message_id = '{}' AND NEW.state {} BEGIN SELECT RAISE(ABORT, 'refused'); END
"""


@pytest.fixture
def refuse(sqlite_url):
    """``refuse(message, states)``: the database takes no update of its audit to these."""
    database = connect(sqlite_url)

    def refuse(message, states):
        database.execute_sql(REFUSE.format(message.message_id, states))

    yield refuse
    database.close()


@pytest.fixture
def accept(sqlite_url):
    def accept():
        database = connect(sqlite_url)
        with database.connection_context():
            database.execute_sql("DROP TRIGGER refuse")

    return accept


@pytest.fixture
def renewed(audit_of, eventually):
    """``renewed(message)``: wait until its lease is renewed a few times more."""

    def wait(message):
        for _ in range(BEATS):
            before = audit_of(message).due_at
            eventually(lambda before=before: audit_of(message).due_at > before, timeout=5)

    return wait


@pytest.fixture
def errors(caplog):
    """``errors()``: what was logged as an error."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


class Invoice(Audit):
    class Meta:
        table_name = "invoice_audits"


@pytest.mark.failure(20)
def test_while_one_database_is_down_jobs_in_another_keep_their_leases_and_are_completed(
    stub_broker, sqlite_db, own_postgres, make_durable, running_worker, renewed, eventually, caplog
):
    server = own_postgres()
    with server.fresh() as url:
        invoices = connect(url)
        Invoice.bind(invoices)
        begun, end_invoice, end_charge = threading.Barrier(3), threading.Event(), threading.Event()

        durable = make_durable(stub_broker, sqlite_db)

        @durable_actor(audit_model=Invoice, heartbeat_interval=BEAT)
        def invoice():
            begun.wait(10)
            assert end_invoice.wait(30)

        @durable_actor(heartbeat_interval=BEAT)
        def charge():
            begun.wait(10)
            assert end_charge.wait(30)

        durable.create_tables()
        ours, theirs = durable.stores()
        charged, invoiced = charge.send(), invoice.send()
        with running_worker(threads=2):
            begun.wait(10)
            server.stop()
            end_invoice.set()
            eventually(lambda: "Renewals and completions wait" in caplog.text)
            renewed(charged)
            end_charge.set()
            eventually(lambda: ours.get(charged.message_id).state == "completed")
            server.start()
            eventually(lambda: theirs.get(invoiced.message_id).state == "completed")
        assert theirs.get(invoiced.message_id).start_count == 1
        assert ours.get(charged.message_id).start_count == 1
        invoices.close()


@pytest.fixture
def durable(stub_broker, sqlite_db, make_durable):
    return make_durable(stub_broker, sqlite_db)


class Rehearsal:
    """Three jobs that begin together, and end when they are told to."""

    NAMES = ("one", "other", "runs on")

    def __init__(self):
        self.begun = threading.Barrier(len(self.NAMES) + 1)
        self.ends = {name: threading.Event() for name in self.NAMES}

    def body(self, name):
        self.begun.wait(10)
        assert self.ends[name].wait(30)

    def end(self, *names):
        for name in names:
            self.ends[name].set()


@pytest.fixture
def rehearsal():
    rehearsal = Rehearsal()
    yield rehearsal
    rehearsal.end(*rehearsal.NAMES)


@pytest.fixture
def sent(durable, rehearsal):
    """``sent()``: the messages of the three; with ``fails=True`` the first job, whose lease is long, fails at its end."""

    def send(*, fails=False):
        @durable_actor(heartbeat_interval=BEAT, max_retries=0)
        def charge(name):
            rehearsal.body(name)
            if fails and name == "one":
                raise ValueError(name)

        one, *others = rehearsal.NAMES
        first = charge.message_with_options(args=(one,))
        if fails:
            first.options["heartbeat_interval"] = 60_000
        return [charge.broker.enqueue(first), *(charge.send(name) for name in others)]

    return send


def test_a_completion_that_the_database_refuses_is_an_error_once_and_holds_up_nothing(
    durable, sent, rehearsal, refuse, running_worker, renewed, eventually, audit_of, errors
):
    done, other, runs_on = sent()
    refuse(done, "= 'completed'")
    with running_worker(threads=3):
        rehearsal.begun.wait(10)
        rehearsal.end("one", "other")
        eventually(lambda: audit_of(other).state == "completed", timeout=5)
        renewed(runs_on)
        rehearsal.end("runs on")
    assert durable.flush()
    assert audit_of(runs_on).state == "completed"
    assert audit_of(done).state == "running"
    assert len([text for text in errors() if done.message_id in text]) == 1


def test_a_release_that_the_database_refuses_is_repeated_and_holds_up_nothing(
    durable, sent, rehearsal, refuse, accept, running_worker, renewed, eventually, audit_of, errors
):
    fails, other, runs_on = sent(fails=True)
    refuse(fails, "= 'pending'")
    with running_worker(threads=3):
        rehearsal.begun.wait(10)
        rehearsal.end("one")
        eventually(lambda: any("cannot be written" in text for text in errors()))
        rehearsal.end("other")
        eventually(lambda: audit_of(other).state == "completed", timeout=5)
        renewed(runs_on)
        accept()
        eventually(lambda: audit_of(fails).state == "pending")
        rehearsal.end("runs on")
    assert durable.flush()
    audit = audit_of(fails)
    assert (audit.failure_count, audit.crash_count, audit.last_error) == (1, 0, "ValueError: one")
    assert len([text for text in errors() if "cannot be written" in text]) == 1


def test_a_renewal_that_the_database_refuses_keeps_no_other_lease_from_being_renewed(
    durable, sent, rehearsal, refuse, accept, running_worker, renewed, audit_of
):
    done, _, runs_on = sent()
    with running_worker(threads=3):
        rehearsal.begun.wait(10)
        refuse(done, "= 'running'")
        before = audit_of(done).due_at
        renewed(runs_on)
        assert audit_of(done).due_at == before
        accept()
        renewed(done)
        rehearsal.end(*rehearsal.NAMES)
    assert durable.flush()
    assert audit_of(done).state == "completed"


@pytest.mark.failure("14b")
def test_a_failure_during_a_stall_of_the_database_is_a_failure_and_no_crash(
    stub_broker, postgres_url, make_durable, console_of, running_worker, eventually, audit_of
):
    console = console_of(postgres_url)
    name = console.one("SELECT current_database()")
    console.execute(f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
    durable = make_durable(stub_broker, postgres_url)

    @durable_actor(max_retries=0, heartbeat_interval=10_000)
    def charge():
        console.execute("BEGIN")
        console.execute("LOCK TABLE durable_audits IN ACCESS EXCLUSIVE MODE")
        raise ValueError

    message = charge.send()
    with running_worker(threads=1) as worker:
        eventually(lambda: stub_broker.queues["default"].unfinished_tasks == 0)
        console.execute("ROLLBACK")
        assert worker
    assert durable.flush()
    audit = audit_of(message)
    assert (audit.state, audit.failure_count, audit.crash_count) == ("pending", 1, 0)


def keepers():
    gc.collect()
    return {thread for thread in threading.enumerate() if thread.name == "durable-keeper"}


def test_its_thread_ends_with_the_broker_that_it_works_for(eventually):
    before = keepers()

    def run_a_job():
        broker = StubBroker()
        broker.emit_after("process_boot")
        durable = DurableMiddleware("sqlite:///:memory:")
        broker.add_middleware(durable)
        durable.create_tables()

        @durable_actor(broker=broker)
        def charge():
            pass

        message = charge.send()
        worker = dramatiq.Worker(broker, worker_timeout=10)
        worker.start()
        broker.join("default")
        worker.stop()
        audit = durable.store.get(message.message_id)
        assert audit is not None
        assert audit.state == "completed"
        return keepers() - before

    its = run_a_job()
    assert its
    eventually(lambda: not its & keepers())
