"""The table is created, compared and changed by the command, or by the DDL that it prints."""

import json
import traceback

import dramatiq
import peewee
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, durable_actor
from dramatiq_durable.errors import SchemaMismatch
from tests.support.servers import free_port

APP = """
    import os
    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import Audit, DurableMiddleware, durable_actor

    broker = StubBroker()
    durable = DurableMiddleware(os.environ["SHOP_DATABASE"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
"""

TABLES = 8

MANY_TABLES = f"""{APP}
    for number in range({TABLES}):
        meta = type("Meta", (), dict(database=durable.database, table_name=f"audits_{{number}}"))
        model = type(f"Audit{{number}}", (Audit,), dict(Meta=meta))
        durable_actor(lambda: None, actor_name=f"job_{{number}}", audit_model=model)
"""

RACE = """
    import pathlib, sys, time
    import app, dramatiq_durable.cli

    print("at the line")
    while not pathlib.Path("go").exists():
        time.sleep(0.001)
    sys.argv[1:] = ["schema", "create", "app:broker"]
    dramatiq_durable.cli.main()
"""


@pytest.fixture
def schema(command_on, database_url):
    """``schema("create")``: the command, in this process, for a broker whose audits are in the test's database."""
    broker = StubBroker()
    durable = DurableMiddleware(database_url)
    broker.add_middleware(durable)
    command = command_on(broker)
    yield lambda name, *args: command(f"schema {name}", *args)
    durable.store.connections.close()


@pytest.fixture
def sends_and_works(stub_broker, db, work):
    """``sends_and_works()``: whether the library works on the table that is there."""

    def check():
        ran = []
        durable = DurableMiddleware(db)
        stub_broker.add_middleware(durable)

        @durable_actor
        def charge(order_id):
            ran.append(order_id)

        charge.send(42)
        work()
        states = [audit.state for audit in durable.store.list_audits()]
        durable.store.connections.close()
        return (ran, states) == ([42], ["completed"])

    return check


def described(database, table="durable_audits"):
    """The columns and indexes of *table*, whatever its name is."""
    columns = [column._replace(table="", default=None) for column in database.get_columns(table)]
    indexes = [
        (index.name.removeprefix(table), tuple(index.columns), index.unique)
        for index in database.get_indexes(table)
    ]
    return columns, sorted(indexes)


def nobody_at(scheme):
    """A URL, with a password, of a server that does not run."""
    return f"{scheme}://shop:hunter2@127.0.0.1:{free_port()}/shop"


@pytest.mark.parity(33)
def test_the_table_is_created_and_may_be_created_again(schema, db, sends_and_works):
    first = schema("create")
    assert (first.exit_code, first.stderr) == (0, "")
    assert "durable_audits" in first.stdout
    before = described(db)
    again = schema("create")
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
    assert described(db) == before
    assert sends_and_works()


def test_what_is_in_the_table_stays_when_it_is_created_again(command, printed, charge):
    charge.send(1)
    before = printed("list")
    assert len(before) == 1
    assert command("schema create").exit_code == 0
    assert printed("list") == before


@pytest.mark.failure(39)
def test_several_may_create_the_tables_at_the_same_time(app, database_url, db):
    shop = app(MANY_TABLES, SHOP_DATABASE=database_url)
    racing = [shop.process(RACE) for _ in range(3)]
    for process in racing:
        process.wait_for("at the line")
    (shop.folder / "go").touch()
    for process in racing:
        assert process.wait() == 0, process.output()
        assert process.output().count("is ready") == 1 + TABLES + 1
    columns, plain = described(db)
    assert len(plain) >= 3
    for number in range(TABLES):
        assert described(db, f"audits_{number}") == (columns, plain)


@pytest.mark.parity(33)
def test_the_ddl_executed_by_hand_makes_the_table_that_the_command_makes(
    schema, db, sends_and_works
):
    done = schema("sql")
    assert (done.exit_code, done.stderr) == (0, "")
    for statement in done.stdout.removesuffix(";\n").split(";\n"):
        db.execute_sql(statement)
    by_hand = described(db)
    for statement in done.stdout.removesuffix(";\n").split(";\n"):
        db.execute_sql(statement)  # the tool that applies migrations was stopped, and starts again
    assert described(db) == by_hand
    assert sends_and_works()

    for table in ("durable_audits", "durable_monitors"):
        db.execute_sql(f"DROP TABLE {table}")
    assert schema("create").exit_code == 0
    assert described(db) == by_hand


@pytest.mark.failure(43)
def test_what_a_worker_says_of_a_missing_table_is_one_error_and_not_a_chain(
    stub_broker, database_url
):
    durable = DurableMiddleware(database_url)
    stub_broker.add_middleware(durable)
    with pytest.raises(SchemaMismatch, match="schema create") as caught:
        dramatiq.Worker(stub_broker).start()
    said = "".join(traceback.format_exception(caught.value))
    assert said.count("Traceback") == 1
    durable.store.connections.close()


def test_the_ddl_is_printed_without_a_database(command_on):
    broker = StubBroker()
    broker.add_middleware(DurableMiddleware(nobody_at("postgresql")))
    done = command_on(broker)("schema sql")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("CREATE TABLE")


@pytest.fixture
def older(schema, db):
    """A table that lacks a column and an index."""
    assert schema("create").exit_code == 0
    suffix = " ON durable_audits" if isinstance(db, peewee.MySQLDatabase) else ""
    with db.connection_context():
        db.execute_sql("ALTER TABLE durable_audits DROP COLUMN signature")
        db.execute_sql(f"DROP INDEX durable_audits_due{suffix}")


@pytest.mark.failure(43)
def test_check_says_what_differs_and_what_to_do_and_that_nothing_does(older, schema):
    done = schema("check")
    assert (done.exit_code, done.stdout.splitlines()) == (
        1,
        [
            "durable_audits: the column signature is missing",
            "durable_audits: the index durable_audits_due is missing",
            "durable_monitors is as this version wants it",
        ],
    )
    assert (
        done.stderr == "Error: 2 differences; run `dramatiq-durable schema migrate shop:broker`\n"
    )
    assert schema("migrate").exit_code == 0
    done = schema("check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "durable_audits is as this version wants it",
        "durable_monitors is as this version wants it",
    ]


@pytest.mark.failure(43)
def test_check_says_it_to_programs(older, schema):
    done = schema("check", "--json")
    assert done.exit_code == 1
    column, index = json.loads(done.stdout)
    assert (column["table"], column["difference"]) == (
        "durable_audits",
        "the column signature is missing",
    )
    assert column["sql"][0].startswith("ALTER TABLE")
    assert "INDEX" in index["sql"][0]
    assert schema("migrate").exit_code == 0
    done = schema("check", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


@pytest.mark.failure(43)
def test_migrate_prints_what_it_executes_and_the_second_time_nothing(older, schema):
    dry = schema("migrate", "--dry-run")
    assert (dry.exit_code, dry.stderr) == (0, "")
    done = schema("migrate")
    assert (done.exit_code, done.stderr) == (0, "")
    ready = "durable_audits is ready\ndurable_monitors is ready\n"
    assert done.stdout == f"{dry.stdout}{ready}"
    again = schema("migrate")
    assert (again.exit_code, again.stdout) == (0, ready)


@pytest.mark.failure(43)
@pytest.mark.parametrize("name", ["check", "migrate --dry-run", "migrate"])
def test_what_only_the_application_can_mend_is_named(command_on, stub_broker, durable, name):
    database = durable.database
    with database.connection_context():
        database.execute_sql("ALTER TABLE durable_audits DROP COLUMN actor_name")
    durable.store.connections.close()
    done = command_on(stub_broker)(f"schema {name.split()[0]}", *name.split()[1:])
    assert done.exit_code == 1
    assert "durable_audits is ready" not in done.stdout
    [line] = done.stderr.splitlines()
    assert "by a migration of your own: durable_audits: the column actor_name" in line
    assert "run `" not in line


@pytest.mark.failure(39)
def test_several_may_migrate_at_the_same_time(older, schema, app, database_url, db):
    shop = app(APP, SHOP_DATABASE=database_url)
    before = described(db)
    racing = [shop.process(RACE.replace("create", "migrate")) for _ in range(3)]
    for process in racing:
        process.wait_for("at the line")
    (shop.folder / "go").touch()
    for process in racing:
        assert process.wait(timeout=60) == 0, process.output()
    assert "".join(process.output() for process in racing).count("ADD COLUMN") == 1
    assert described(db) != before
    assert schema("check").exit_code == 0


TWO_DATABASES = f"""{APP}
    import peewee


    class Other(Audit):
        class Meta:
            database = peewee.SqliteDatabase("other.db")


    durable_actor(lambda: None, actor_name="job", audit_model=Other)
"""


def test_tables_of_one_name_in_two_databases_are_told_apart(app, sqlite_url, sqlite_db):
    shop = app(TWO_DATABASES, SHOP_DATABASE=sqlite_url)
    created = shop.run("schema", "create", "app:broker")
    assert created.stdout.splitlines() == [
        "durable_audits of Audit is ready",
        "durable_audits of Other is ready",
        "durable_monitors is ready",
    ]
    sqlite_db.execute_sql("ALTER TABLE durable_audits DROP COLUMN signature")
    checked = shop.run("schema", "check", "app:broker")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "durable_audits of Audit: the column signature is missing",
        "durable_audits of Other is as this version wants it",
        "durable_monitors is as this version wants it",
    ]
