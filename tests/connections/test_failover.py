"""The database fails over to a standby that has not got the last commits."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import threading
from types import SimpleNamespace

import dramatiq
import pytest

from dramatiq_durable import LeaseLost, current_audit, durable_actor

pytestmark = pytest.mark.failure(38)


class Standby:
    """Another server, with the audits as they were when they were last copied to it."""

    def __init__(self, store):
        self._audit = store.audit
        self._database = store.database
        self._rows = []

    def copy(self):
        with self._database.connection_context():
            self._rows = list(self._audit.select().dicts())

    def take_over(self):
        with self._database.connection_context(), self._database.atomic():
            self._audit.delete().execute()
            if self._rows:
                self._audit.insert_many(self._rows).execute()


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def standby(durable):
    return Standby(durable.store)


@pytest.fixture
def statements(db):
    """``statements(verb)``: those of them that come from now on."""

    def of(verb):
        seen = []
        db.query_hooks.append(lambda event: event.sql.startswith(verb) and seen.append(event))
        return seen

    return of


@pytest.fixture
def runs():
    """Of each run of :func:`charge`: its token, its end, and the test's word to end it."""
    return []


@pytest.fixture
def declare(durable, runs):
    """``declare(**options)``: an actor each of whose runs waits for the test."""

    def declare(**options):
        @durable_actor(**options)
        def charge():
            run = SimpleNamespace(token=current_audit().token, end=None, go_on=threading.Event())
            runs.append(run)
            try:
                while not run.go_on.wait(0.005):
                    pass
                run.end = "end"
            except LeaseLost:
                run.end = "lost"
                raise

        return charge

    yield declare
    for run in runs:
        run.go_on.set()


def test_a_job_whose_audit_is_missing_is_given_one_and_runs_once(
    standby, stub_broker, work, monitor, clock, audit_of
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    message = charge.send(42)
    standby.take_over()
    assert audit_of(message) is None
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.enqueue_count) == ("completed", 1, 1)
    clock.move(hours=1)
    assert monitor.run_once().recovered == 0


def test_copies_of_a_recovery_that_was_lost_run_once(
    standby, stub_broker, work, monitor, clock, audit_of
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    message = charge.send(42)
    stub_broker.flush_all()
    standby.copy()
    clock.move(hours=1)
    assert monitor.run_once().recovered == 1
    standby.take_over()
    assert monitor.run_once().recovered == 1
    assert stub_broker.queues["default"].qsize() == 2
    work(threads=2)
    assert ran == [42]
    assert (audit_of(message).state, audit_of(message).start_count) == ("completed", 1)


def test_a_holder_whose_claim_was_lost_is_interrupted_and_the_job_runs_again(
    declare, standby, runs, running_worker, monitor, clock, eventually, audit_of
):
    message = declare(heartbeat_interval=100).send()
    standby.copy()
    with running_worker(threads=2):
        eventually(lambda: len(runs) == 1)
        standby.take_over()
        eventually(lambda: runs[0].end == "lost")
        assert (audit_of(message).state, audit_of(message).start_count) == ("pending", 0)
        clock.move(hours=1)
        assert monitor.run_once().recovered == 1
        eventually(lambda: len(runs) == 2)
        runs[1].go_on.set()
        eventually(lambda: audit_of(message).state == "completed")
    assert [run.end for run in runs] == ["lost", "end"]


def test_a_holder_whose_audit_was_lost_goes_on_for_nobody_else_has_the_job(
    durable, declare, runs, standby, running_worker, eventually, statements
):
    charge = declare(heartbeat_interval=50)
    standby.copy()
    with running_worker():
        charge.send()
        eventually(lambda: runs)
        standby.take_over()
        assert durable.store.list_audits() == []
        beats = statements("UPDATE")
        eventually(lambda: len(beats) > 3)  # none of them is refused
        runs[0].go_on.set()
        eventually(lambda: runs[0].end)
    assert [run.end for run in runs] == ["end"]


def test_what_it_writes_is_refused_although_the_next_holder_has_the_same_token(
    declare, standby, runs, running_worker, monitor, clock, eventually, audit_of, caplog
):
    # Without heartbeats nobody tells it.
    message = declare(heartbeat_interval=None).send()
    standby.copy()
    with running_worker(threads=2):
        eventually(lambda: len(runs) == 1)
        standby.take_over()
        clock.move(hours=1)
        assert monitor.run_once().recovered == 1
        eventually(lambda: len(runs) == 2)
        assert runs[0].token == runs[1].token
        second = audit_of(message)
        runs[0].go_on.set()
        eventually(lambda: "its audit was no longer ours" in caplog.text)
        assert audit_of(message).__data__ == second.__data__
        assert second.state == "running"
        runs[1].go_on.set()
        eventually(lambda: audit_of(message).state == "completed")
    assert [run.end for run in runs] == ["end", "end"]
    assert audit_of(message).claim_id == second.claim_id


def test_a_job_whose_completion_was_lost_runs_again_after_its_lease(
    durable, standby, declare, runs, running_worker, monitor, clock, eventually, audit_of
):
    message = declare().send()
    with running_worker():
        eventually(lambda: len(runs) == 1)
        standby.copy()
        runs[0].go_on.set()
        eventually(lambda: audit_of(message).state == "completed")
        standby.take_over()
        assert audit_of(message).state == "running"
        assert monitor.run_once().recovered == 0
        clock.move(seconds=41)
        assert monitor.run_once().recovered == 1
        eventually(lambda: len(runs) == 2)
        runs[1].go_on.set()
        eventually(lambda: audit_of(message).state == "completed")
    assert (audit_of(message).start_count, audit_of(message).crash_count) == (2, 1)


class Watcher(dramatiq.Middleware):
    def __init__(self):
        self.enqueued = []

    def before_enqueue(self, broker, message, delay):
        self.enqueued.append(message)


def test_the_retry_of_a_job_whose_release_was_lost_takes_it_over_from_the_run_that_failed(
    durable, standby, stub_broker, running_worker, eventually, work, audit_of
):
    watcher = Watcher()
    stub_broker.add_middleware(watcher)
    ran = []

    @durable_actor(max_retries=1)
    def charge():
        ran.append(current_audit().token)
        if len(ran) == 1:
            standby.copy()
            raise RuntimeError("no luck")

    message = charge.send()
    with running_worker():
        eventually(lambda: len(watcher.enqueued) == 2)
    assert audit_of(message).state == "pending"
    stub_broker.flush_all()
    standby.take_over()
    assert audit_of(message).state == "running"
    # As a worker moves it from its delay queue at its eta.
    retry = watcher.enqueued[1].copy(queue_name="default")
    del retry.options["eta"]
    stub_broker.enqueue(retry)
    work()
    assert ran == [1, 3]
    assert (audit_of(message).state, audit_of(message).start_count) == ("completed", 2)
