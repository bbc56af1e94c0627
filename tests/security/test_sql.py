"""Names are parameters, never SQL; those of tables are quoted, and checked for what would end the quotes."""

import json
from datetime import timedelta

import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, DurableError, DurableMiddleware, Monitor, durable_actor
from dramatiq_durable.store import differences, migrate

TABLE = "durable_audits"
HOSTILE = f"x'; DROP TABLE {TABLE}; -- \" ` % %s %(a)s ? :a \\ \\' /* {{}} é"

pytestmark = pytest.mark.failure(48)


@pytest.fixture
def make_broker():
    """``make_broker(db, **options)``: a broker with a DurableMiddleware and its table."""
    made = []

    def make(database, **options):
        broker = StubBroker()
        durable = DurableMiddleware(database, **options)
        made.append(durable)
        broker.add_middleware(durable)
        durable.create_tables()
        return broker, durable

    yield make
    for durable in made:
        durable.store.connections.close()


@pytest.fixture
def hostile(make_broker, db, clock, work):
    """A broker whose every name is SQL, with one job that is completed and one that is dead."""
    broker, _ = make_broker(db, namespace=HOSTILE, signing_key=HOSTILE)
    broker.declare_queue(HOSTILE)
    failures = []

    @durable_actor(broker=broker, actor_name=HOSTILE, throws=ValueError, max_retries=1)
    def act(text):
        if text == "dead":
            raise ValueError(HOSTILE)
        if not failures:
            failures.append(text)
            raise RuntimeError(HOSTILE)

    for text in ("completed", "dead"):
        copy = act.message(text).copy(message_id=f"{HOSTILE} {text}", queue_name=HOSTILE)
        broker.enqueue(copy)
    broker.flush_all()
    clock.move(hours=1)
    assert Monitor(broker).run_once().recovered == 2
    work(broker)
    return broker


@pytest.fixture
def bystander(make_broker, db, audits):
    """What the audits of an honest application look like; it has one, which nothing may change."""
    broker, durable = make_broker(db)
    durable_actor(actor_name="honest", broker=broker)(lambda: None).send()
    return lambda: [dict(audit.__data__) for audit in audits(durable)]


def test_jobs_whose_names_are_sql_are_sent_recovered_run_and_looked_after(
    bystander, hostile, command_on, clock
):
    before = bystander()
    assert len(before) == 1
    command = command_on(hostile)

    def printed(*words):
        done = command(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert printed("status")["states"]["completed"] == 1
    of_them = ("--actor", HOSTILE, "--queue", HOSTILE)
    assert [audit["state"] for audit in printed("list", *of_them)] == ["dead", "completed"]
    assert printed("list", "--actor", f"{HOSTILE}'") == []
    shown = printed("show", f"{HOSTILE} dead")
    names = [shown[name] for name in ("namespace", "actor_name", "queue_name")]
    assert names == [HOSTILE] * 3
    assert shown["last_error"] == f"ValueError: {HOSTILE}"
    for name in ("retry", "cancel", "retry"):
        assert command(name, f"{HOSTILE} dead").stdout.split()[1] == "1"
    assert command("cancel", *of_them, "--yes").stdout == "cancelled 1\n"
    clock.move(days=20)
    assert command("purge", "--yes").stdout == "deleted 2\n"
    assert printed("list") == []
    assert bystander() == before


GOOD_TABLES = ["audits-of-shop", "My Audits", "select", f"a; DROP TABLE {TABLE} --", "é" * 26]
BAD_TABLES = [
    *(f"a{quote}; DROP TABLE {TABLE}; --" for quote in "\"'`\\"),
    "per%scent",
    "new\nline",
    "nul\0",
    "\x1b[2J",
    "a" * 53,
    "é" * 27,
]


def model_of(database, **meta):
    return type("Model", (Audit,), {"Meta": type("Meta", (), {"database": database, **meta})})


@pytest.mark.parametrize("name", GOOD_TABLES)
def test_a_table_may_have_an_unusual_name(make_broker, db, work, clock, name):
    broker, durable = make_broker(db, audit_model=model_of(db, table_name=name))
    durable.create_tables()
    ran = []

    @durable_actor(broker=broker)
    def job(number):
        ran.append(number)

    job.send(1)
    broker.flush_all()
    clock.move(hours=1)
    assert Monitor(broker).run_once().recovered == 1
    work(broker)
    assert ran == [1]
    assert differences(durable.store.table) == []
    with db.connection_context():
        assert set(db.get_tables()) == {name, "durable_monitors"}
        db.execute_sql(f"ALTER TABLE {durable.store.table.quoted()} DROP COLUMN signature")
    durable.store.connections.close()
    assert migrate(durable.store.table, timedelta(seconds=20), ran.append) == []
    with db.connection_context():
        indexes = {index.name for index in db.get_indexes(name)}
    of_columns = ("message_id", "due", "finished", "unique_key")
    assert indexes >= {f"{name}_{columns}" for columns in of_columns}


@pytest.mark.parametrize("name", BAD_TABLES)
@pytest.mark.parametrize("what", ["table_name", "schema"])
def test_a_table_whose_name_would_end_its_quotes_is_refused(stub_broker, sqlite_db, what, name):
    model = model_of(sqlite_db, **{what: name})
    with pytest.raises(DurableError, match="audit_model Model: ") as caught:
        DurableMiddleware(sqlite_db, audit_model=model)
    assert str(caught.value).isprintable()
    stub_broker.add_middleware(DurableMiddleware(sqlite_db))
    with pytest.raises(DurableError, match="audit_model Model: "):
        durable_actor(actor_name="job", audit_model=model)(lambda: None)
