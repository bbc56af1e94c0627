"""Audits in two databases: what happens to one does not concern the other."""

import logging
import threading

import peewee
import pytest
from dramatiq import Message

from dramatiq_durable import Audit, DurableMiddleware, Monitor, durable_actor
from dramatiq_durable.errors import DatabaseUnreachable, SchemaMismatch


class Databases:
    """A broker's default database and that of an actor's audit_model, each in a directory of its own."""

    def __init__(self, broker, root):
        self.broker = broker
        self.root = root
        near, far = (self._database(name) for name in ("near", "far"))
        self.databases = {"near": near, "far": far}
        self.durable = DurableMiddleware(near)
        broker.add_middleware(self.durable)
        own = type("Own", (Audit,), {"Meta": type("Meta", (), {"database": far})})
        self.actors = {
            "near": durable_actor(actor_name="near")(print),
            "far": durable_actor(actor_name="far", audit_model=own)(print),
        }
        self.durable.create_tables()

    def _database(self, name):
        (self.root / name).mkdir()
        return peewee.SqliteDatabase(self.root / name / "audits.db")

    def send(self, name):
        """Send a message, and have the broker lose it."""
        message = self.actors[name].send()
        self.broker.flush_all()
        self.close()
        return message

    def break_down(self, name):
        self.close()
        (self.root / name).rename(self.root / f"{name} is away")

    def repair(self, name):
        (self.root / f"{name} is away").rename(self.root / name)

    def execute(self, name, sql):
        with self.databases[name].connection_context():
            self.databases[name].execute_sql(sql)

    def waiting(self):
        """The actors of the messages in the broker."""
        queued = list(self.broker.queues["default"].queue)
        return sorted(Message.decode(each).actor_name for each in queued)

    def close(self):
        for store in self.durable.stores():
            store.connections.close()
            store.reserved().connections.close()


@pytest.fixture
def two(stub_broker, tmp_path):
    databases = Databases(stub_broker, tmp_path)
    yield databases
    databases.close()


@pytest.mark.failure(21)
def test_after_an_outage_of_a_database_its_workers_have_time_to_renew_their_leases(
    two, clock, monkeypatch
):
    crashed, other = two.send("near"), two.send("far")
    store = two.durable.stores()[0]
    assert store.claim(crashed.message_id, 0, "c1", worker="alive")
    monitor = Monitor(two.broker)
    two.break_down("near")
    clock.move(hours=1)
    with pytest.raises(DatabaseUnreachable):
        monitor.run_once()
    assert two.waiting() == ["far"]
    two.repair("near")
    waiting = two.send("near")
    clock.move(hours=1)
    assert monitor.run_once().recovered == 2  # all but what ran when the database went away
    assert store.find(crashed.message_id).crash_count == 0
    assert store.find(waiting.message_id).enqueue_count == 2
    assert other

    monkeypatch.setattr("dramatiq_durable.grace.GRACE", 0.0)
    two.break_down("near")
    with pytest.raises(DatabaseUnreachable):
        monitor.run_once()
    two.repair("near")
    assert monitor.run_once().recovered == 1
    assert store.find(crashed.message_id).crash_count == 1


OTHER = {"near": "far", "far": "near"}


@pytest.fixture(params=OTHER)
def broken(request):
    return request.param


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


@pytest.mark.failure(21)
def test_the_time_to_renew_begins_when_a_monitor_that_runs_finds_the_database_back(
    two, clock, run, eventually, monkeypatch, caplog
):
    monkeypatch.setattr("dramatiq_durable.grace.GRACE", 1.0)
    alive, gone, waiting = (two.actors["near"].send() for _ in range(3))
    two.broker.flush_all()
    store = two.durable.stores()[0]
    held = store.claim(alive.message_id, 0, "c1", worker="alive")
    assert store.claim(gone.message_id, 0, "c2", worker="gone")
    clock.move(hours=1)
    two.break_down("near")
    run(Monitor(two.broker, interval=0.75))
    eventually(lambda: "The monitor waits" in caplog.text)  # for 1.5 seconds
    two.repair("near")
    # It was due after the two that were running, so that the monitor has passed by them.
    eventually(lambda: store.find(waiting.message_id).enqueue_count == 2)
    assert [store.find(each.message_id).crash_count for each in (alive, gone)] == [0, 0]
    assert store.heartbeat([held]) == set()
    eventually(lambda: store.find(gone.message_id).crash_count == 1)
    assert store.find(alive.message_id).crash_count == 0


@pytest.mark.failure(21)
def test_a_pass_serves_the_database_that_answers_and_then_raises_for_the_other(two, broken, clock):
    for name in OTHER:
        two.send(name)
    clock.move(hours=1)
    two.break_down(broken)
    monitor = Monitor(two.broker)
    with pytest.raises(DatabaseUnreachable):
        monitor.run_once()
    assert two.waiting() == [OTHER[broken]]

    two.repair(broken)
    assert monitor.run_once().recovered == 1
    assert two.waiting() == ["far", "near"]


@pytest.mark.failure(21)
def test_the_finished_audits_of_the_database_that_answers_are_deleted_all_the_same(
    two, broken, clock, work
):
    two.actors[OTHER[broken]].send()
    work()
    clock.move(days=2)
    two.break_down(broken)
    with pytest.raises(DatabaseUnreachable):
        Monitor(two.broker).run_once()
    two.repair(broken)
    assert [len(store.list_audits()) for store in two.durable.stores()] == [0, 0]


@pytest.mark.failure(43)
def test_a_missing_table_is_reported_after_the_other_has_been_served(two, broken, clock):
    two.send(OTHER[broken])
    clock.move(hours=1)
    two.execute(broken, "DROP TABLE durable_audits")
    with pytest.raises(SchemaMismatch):
        Monitor(two.broker).run_once()
    assert two.waiting() == [OTHER[broken]]


def test_any_other_error_of_a_database_is_reported_after_the_other_has_been_served(
    two, broken, clock
):
    for name in OTHER:
        two.send(name)
    clock.move(hours=1)
    two.execute(
        broken,
        "CREATE TRIGGER refuse BEFORE UPDATE ON durable_audits "
        "BEGIN SELECT RAISE(ABORT, 'not today'); END",
    )
    with pytest.raises(peewee.IntegrityError, match="not today"):
        Monitor(two.broker).run_once()
    assert two.waiting() == [OTHER[broken]]


@pytest.mark.failure(21)
def test_the_loop_goes_on_with_the_database_that_answers_and_with_the_other_once_it_does(
    two, broken, clock, run, eventually, caplog
):
    two.send(broken)
    two.send(OTHER[broken])
    clock.move(hours=1)
    two.break_down(broken)
    run(Monitor(two.broker, interval=0.01))
    eventually(lambda: two.waiting() == [OTHER[broken]])
    eventually(lambda: "The monitor waits" in caplog.text)
    two.repair(broken)
    eventually(lambda: two.waiting() == ["far", "near"])
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


@pytest.mark.failure(43)
def test_a_missing_table_beside_a_good_one_does_not_end_the_loop_and_is_asked_for_less_and_less(
    two, broken, clock, run, eventually, caplog
):
    two.execute(broken, "DROP TABLE durable_audits")
    passes = []
    two.databases[OTHER[broken]].query_hooks.append(passes.append)
    thread = run(Monitor(two.broker, interval=0.001))
    eventually(lambda: len(passes) > 400)
    assert thread.is_alive()
    warnings = [r for r in caplog.records if "schema create" in r.getMessage()]
    assert 0 < len(warnings) < 20


@pytest.mark.failure(43)
def test_the_loop_ends_when_every_table_is_missing(two):
    for name in OTHER:
        two.execute(name, "DROP TABLE durable_audits")
    with pytest.raises(SchemaMismatch):
        Monitor(two.broker).run()


@pytest.mark.failure(43)
def test_a_table_that_vanishes_beside_one_that_was_missing_does_not_end_it_either(
    two, monkeypatch, clock, run, eventually, caplog
):
    monkeypatch.setattr(
        "dramatiq_durable.monitor.LONGEST_PAUSE", 0.02
    )  # soon both fail in one pass
    two.execute("far", "DROP TABLE durable_audits")
    thread = run(Monitor(two.broker, interval=0.01))
    two.send("near")
    clock.move(hours=1)
    eventually(lambda: two.waiting() == ["near"])
    two.execute("near", "ALTER TABLE durable_audits RENAME TO elsewhere")
    before = caplog.text.count("The monitor waits")
    eventually(lambda: caplog.text.count("The monitor waits") >= before + 200)
    assert thread.is_alive()


@pytest.mark.failure(43)
def test_tables_that_vanish_while_it_runs_do_not_end_it(two, clock, run, eventually, caplog):
    thread = run(Monitor(two.broker, interval=0.01))
    two.send("near")
    clock.move(hours=1)
    eventually(lambda: two.waiting() == ["near"])
    for name in OTHER:
        two.execute(name, "ALTER TABLE durable_audits RENAME TO elsewhere")
    eventually(lambda: caplog.text.count("The monitor waits") >= 2)
    for name in OTHER:
        two.execute(name, "ALTER TABLE elsewhere RENAME TO durable_audits")
    two.send("far")
    clock.move(hours=1)
    eventually(lambda: "far" in two.waiting())
    assert thread.is_alive()
