"""The database takes no writes for a while: somebody else holds SQLite's lock, or the disk is full."""

import shutil
import sqlite3
import subprocess
import threading

import peewee
import pytest
from playhouse.db_url import connect

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


# What the servers say of a full disk.
REFUSE = {
    "postgresql": [
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END
        $$
        """,
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON durable_audits EXECUTE FUNCTION refuse()",
    ],
    "mysql": [
        f"CREATE TRIGGER refuse_{verb} BEFORE {verb} ON durable_audits FOR EACH ROW"
        " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'"
        for verb in ("INSERT", "UPDATE")
    ],
}
ACCEPT = {
    "postgresql": ["DROP TRIGGER refuse ON durable_audits"],
    "mysql": ["DROP TRIGGER refuse_INSERT", "DROP TRIGGER refuse_UPDATE"],
}


class FullServer:
    """Nobody has to fill its disk: a trigger says what it would say."""

    def __init__(self, url):
        self.database = connect(url)
        self._scheme = url.partition(":")[0]

    def begin(self):
        self._execute(REFUSE)

    def end(self):
        self._execute(ACCEPT)

    def close(self):
        pass

    def _execute(self, statements):
        for statement in statements[self._scheme]:
            self.database.execute_sql(statement)
        self.database.close()


def mount(folder):
    """Whether it has been possible."""
    program = shutil.which("mount")
    if program is None:
        return False
    command = [program, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def busy(tmp_path):
    return Busy(tmp_path)


@pytest.fixture
def full_disk(tmp_path):
    if not mount(tmp_path):
        yield FullFile(tmp_path)
        return
    yield FullDisk(tmp_path)
    subprocess.run([find("umount"), "--lazy", str(tmp_path)], check=True)


@pytest.fixture
def full_postgres(postgres_url):
    return FullServer(postgres_url)


@pytest.fixture
def full_mariadb(mariadb_url):
    return FullServer(mariadb_url)


FULL = ["full_disk", "full_postgres", "full_mariadb"]


@pytest.fixture(
    params=[
        pytest.param("busy", marks=pytest.mark.failure(39)),
        *[pytest.param(name, marks=pytest.mark.failure(40)) for name in FULL],
    ]
)
def trouble(request):
    """``trouble.begin()``, ``trouble.end()`` with the database that has it."""
    made = request.getfixturevalue(request.param)
    yield made
    made.close()
    if not made.database.is_closed():
        made.database.close()


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
