"""What is printed is safe on a terminal, and JSON whatever is in it."""

import peewee
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, DurableMiddleware, durable_actor

HOSTILE = "a\x1b[31mred\x07\n\ttab\x9b2J\u202eltr\u2028 \x00 é 🐘"


@pytest.fixture
def hostile(charge, sqlite_db):
    """The id of an audit whose texts were written by somebody who means harm."""
    message = charge.send(HOSTILE)
    sqlite_db.execute_sql(
        "UPDATE durable_audits SET last_error = ?, worker = ?, actor_name = ?, queue_name = ?",
        [HOSTILE] * 4,
    )
    return message.message_id


def obeyed(text):
    """The characters of *text* that a terminal would obey."""
    return {c for c in text if c != "\n" and not c.isprintable()}


@pytest.mark.failure(50)
@pytest.mark.parametrize("arguments", [[], ["--json"]])
@pytest.mark.parametrize("name", ["status", "list", "show", "show --arguments"])
def test_control_characters_are_escaped(command, hostile, name, arguments):
    name, *more = name.split()
    words = [hostile, *more] if name == "show" else more
    done = command(name, *words, *arguments)
    assert done.exit_code == 0
    assert "red" in done.stdout
    assert obeyed(done.stdout) == set()


@pytest.mark.failure(50)
def test_what_is_escaped_takes_one_line_and_can_be_read(command, hostile):
    lines = command("show", hostile).stdout.splitlines()
    [line] = [line for line in lines if line.startswith("last_error")]
    assert r"a\x1b[31mred\x07\n\ttab\x9b2J\u202eltr\u2028 \x00 é 🐘" in line


@pytest.mark.failure(50)
def test_an_exception_text_of_megabytes_is_cut_in_the_list(command, durable, work):
    class Long(Exception):
        pass

    @durable_actor(throws=Long)
    def fail():
        raise Long("é" * 1_000_000)

    message = fail.send()
    work()
    assert max(map(len, command("list").stdout.splitlines())) < 300
    shown = command("show", message.message_id).stdout
    assert "ééé" in shown
    assert len(shown) < 5_000


def test_an_empty_table(command, printed, durable):
    status = command("status")
    assert (status.exit_code, status.stderr) == (0, "")
    assert status.stdout.splitlines() == [
        "0 pending, 0 running, 0 completed, 0 dead, 0 cancelled",
        "none stale",
        "no monitor was seen",
    ]
    assert printed("status")["oldest_stale_seconds"] is None
    assert command("list").stdout.split()[0] == "MESSAGE"
    assert len(command("list").stdout.splitlines()) == 1
    assert printed("list") == []


@pytest.mark.parity(11)
def test_the_columns_of_a_subclass_are_shown_whatever_their_type(sqlite_db, command_on):
    class Wide(Audit):
        tenant = peewee.UUIDField(null=True)
        amount = peewee.DecimalField(null=True)
        day = peewee.DateField(null=True)
        moment = peewee.DateTimeField(null=True)
        blob = peewee.BlobField(null=True)

        class Meta:
            database = sqlite_db
            table_name = "wide"

    broker = StubBroker()
    durable = DurableMiddleware(sqlite_db, audit_model=Wide)
    broker.add_middleware(durable)
    durable.create_tables()
    job = durable_actor(actor_name="job", broker=broker)(lambda: None)
    message = job.send()
    sqlite_db.execute_sql(
        "UPDATE wide SET tenant = '12345678123456781234567812345678', amount = 1.5,"
        " day = '2026-03-02', moment = '2026-03-02 10:00:00', blob = x'00ff'"
    )
    command = command_on(broker)
    for words in (["show", message.message_id], ["list"]):
        assert command(*words).exit_code == 0
        done = command(*words, "--json")
        assert done.exit_code == 0
        assert "2026-03-02" in done.stdout
    durable.store.connections.close()


@pytest.fixture
def two_tables(stub_broker, durable, sqlite_db, tmp_path):
    """Two actors, one of which keeps its audits in a database of its own."""

    class Far(Audit):
        class Meta:
            database = peewee.SqliteDatabase(tmp_path / "far.db")

    near = durable_actor(actor_name="near")(lambda: None)
    far = durable_actor(actor_name="far", audit_model=Far)(lambda: None)
    durable.create_tables()
    return near, far


@pytest.mark.parity(10)
def test_all_tables_are_looked_into(command, printed, two_tables, clock):
    ids = []
    for actor in (*two_tables, *two_tables):
        ids.insert(0, actor.send().message_id)
        clock.move(seconds=1)
    assert [audit["message_id"] for audit in printed("list")] == ids
    assert [audit["message_id"] for audit in printed("list", "--limit", "3")] == ids[:3]
    assert [audit["actor_name"] for audit in printed("list", "--actor", "far")] == ["far"] * 2
    assert printed("status")["states"]["pending"] == 4
    assert all(printed("show", each)["message_id"] == each for each in ids)
    clock.move(hours=1)
    assert "4 stale" in command("status").stdout


@pytest.mark.failure(45)
def test_the_audits_of_another_namespace_are_not_there(command, printed, charge, sqlite_db):
    message = charge.send(1)
    sqlite_db.execute_sql("UPDATE durable_audits SET namespace = 'another'")
    assert printed("list") == []
    assert printed("status")["states"]["pending"] == 0
    assert command("show", message.message_id).exit_code == 1
    assert command("cancel", message.message_id).exit_code == 1
