"""SQLite takes no writes for a while: somebody else holds its lock, or the disk is full."""

import shutil
import sqlite3
import subprocess
import threading

import peewee
import pytest

from dramatiq_durable import AuditWriteFailed, durable_actor
from dramatiq_durable.errors import DatabaseUnreachable
from tests.support.programs import find


class Busy:
    """Somebody else's transaction."""

    def __init__(self, folder):
        self.database = peewee.SqliteDatabase(folder / "test.db", timeout=0.01)
        self._writer = sqlite3.connect(folder / "test.db", isolation_level=None)

    def begin(self):
        self._writer.execute("BEGIN IMMEDIATE")

    def end(self):
        self._writer.execute("ROLLBACK")

    def close(self):
        self._writer.close()


class FullDisk:
    """A small file system of its own."""

    def __init__(self, folder):
        self.database = peewee.SqliteDatabase(folder / "test.db")
        self._filler = folder / "filler"

    def begin(self):
        with open(self._filler, "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def end(self):
        self._filler.unlink()

    def close(self):
        pass


class FullFile:
    """Where nobody may mount one: a limit to the pages of the database, of which each write needs some."""

    def __init__(self, folder):
        pragmas = {"max_page_count": 300, "journal_mode": "delete"}
        self.database = peewee.SqliteDatabase(folder / "test.db", pragmas=pragmas)

    def begin(self):
        execute = self.database.execute_sql
        execute("CREATE TABLE filler (filler BLOB)")
        for verb in ("INSERT", "UPDATE"):
            execute(
                f"CREATE TRIGGER {verb}_takes_more AFTER {verb} ON durable_audits"
                " BEGIN INSERT INTO filler VALUES (zeroblob(5000)); END"
            )
        for size in (50_000, 2_000):
            try:
                while True:
                    execute(f"INSERT INTO filler VALUES (zeroblob({size}))")
            except peewee.OperationalError:
                continue
        self.database.close()

    def end(self):
        for verb in ("INSERT", "UPDATE"):
            self.database.execute_sql(f"DROP TRIGGER {verb}_takes_more")
        self.database.execute_sql("DROP TABLE filler")
        self.database.close()

    def close(self):
        pass


def mount(folder):
    """Whether it has been possible."""
    program = shutil.which("mount")
    if program is None:
        return False
    command = [program, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(
    params=[
        pytest.param("busy", marks=pytest.mark.failure(39)),
        pytest.param("full", marks=pytest.mark.failure(40)),
    ]
)
def trouble(request, tmp_path):
    """``trouble.begin()``, ``trouble.end()`` with the database that has it."""
    small = request.param == "full" and mount(tmp_path)
    kind = Busy if request.param == "busy" else FullDisk if small else FullFile
    made = kind(tmp_path)
    yield made
    made.close()
    made.database.close()
    if small:
        subprocess.run([find("umount"), "--lazy", str(tmp_path)], check=True)


@pytest.fixture
def durable(trouble, stub_broker, make_durable):
    return make_durable(stub_broker, trouble.database)


@pytest.fixture
def ran():
    return []


def test_a_send_is_refused_with_nothing_pushed_and_works_again_afterwards(
    trouble, durable, stub_broker, ran, work, audits
):
    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    charge.send(1)
    trouble.begin()
    with pytest.raises(AuditWriteFailed) as caught:
        charge.send(2)
    assert isinstance(caught.value.__cause__, DatabaseUnreachable)
    assert stub_broker.queues["default"].qsize() == 1
    trouble.end()
    charge.send(3)
    work()
    assert ran == [1, 3]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2


def test_a_worker_waits_with_its_jobs_and_then_runs_each_once(
    trouble, durable, ran, running_worker, eventually, audits, caplog
):
    @durable_actor(max_retries=0)
    def charge(order_id):
        ran.append(order_id)

    for order_id in range(10):
        charge.send(order_id)
    trouble.begin()
    with running_worker(threads=2):
        eventually(lambda: caplog.text.count(" waits: ") == 2)
        assert ran == []
        trouble.end()
        eventually(lambda: len(ran) == 10)
    assert durable.flush()
    assert sorted(ran) == list(range(10))
    counts = {(audit.state, audit.start_count, audit.failure_count) for audit in audits(durable)}
    assert counts == {("completed", 1, 0)}


def test_a_completion_waits_and_is_written_once_it_can_be(
    trouble, durable, ran, running_worker, eventually, audit_of, caplog
):
    begun, end = threading.Event(), threading.Event()

    @durable_actor
    def charge():
        begun.set()
        assert end.wait(30)
        ran.append("charge")

    message = charge.send()
    with running_worker():
        assert begun.wait(10)
        trouble.begin()
        end.set()
        eventually(lambda: "Renewals and completions wait" in caplog.text)
        assert (ran, audit_of(message).state) == (["charge"], "running")
        trouble.end()
        eventually(lambda: audit_of(message).state == "completed")
    assert ran == ["charge"]
    assert (audit_of(message).start_count, audit_of(message).crash_count) == (1, 0)


def test_a_pass_of_the_monitor_fails_and_the_next_one_recovers(
    trouble, durable, stub_broker, ran, monitor, clock, work, audit_of
):
    @durable_actor
    def charge():
        ran.append("charge")

    message = charge.send()
    stub_broker.flush_all()
    clock.move(hours=1)
    trouble.begin()
    with pytest.raises(DatabaseUnreachable):
        monitor.run_once()
    assert stub_broker.queues["default"].qsize() == 0
    trouble.end()
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["charge"]
    assert (audit_of(message).state, audit_of(message).enqueue_count) == ("completed", 2)
