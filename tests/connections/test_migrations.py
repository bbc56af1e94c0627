"""`schema migrate` adds what a table lacks, and leaves the rest alone."""

from contextlib import suppress
from datetime import timedelta

import peewee
import pytest

from dramatiq_durable import Audit, DurableMiddleware, durable_actor
from dramatiq_durable.errors import DurableError
from dramatiq_durable.store import differences, migrate

pytestmark = pytest.mark.failure(43)

TABLE = "durable_audits"
INDEXES = ("message_id", "due", "finished")


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def executed(durable):
    """``executed()``: the statements of a migration, which mends all."""

    def run():
        told = []
        durable.store.connections.close()
        assert migrate(durable.store.table, timedelta(seconds=20), told.append) == []
        assert differences(durable.store.table) == []
        return told

    return run


@pytest.fixture
def execute(db):
    """``execute(sql)``, and let go of the table."""

    def run(sql, *params):
        with db.connection_context():
            cursor = db.execute_sql(sql, params)
            return list(cursor.fetchall()) if cursor.description else []

    return run


@pytest.fixture
def drop_index(db, execute):
    on = f" ON {TABLE}" if isinstance(db, peewee.MySQLDatabase) else ""
    return lambda name: execute(f"DROP INDEX {name}{on}")


@pytest.fixture
def described(db):
    """``described()``: the columns and indexes of the table."""

    def of(table=TABLE):
        with db.connection_context():
            columns = {c.name: (c.data_type, c.null) for c in db.get_columns(table)}
            indexes = {i.name: (tuple(i.columns), i.unique, i.sql) for i in db.get_indexes(table)}
        return columns, indexes

    return of


def test_of_a_table_as_it_should_be_nothing_is_changed(durable, executed, described):
    before = described()
    assert differences(durable.store.table) == []
    assert executed() == []
    assert described() == before


def test_a_missing_table_is_created(durable, executed, described, execute):
    before = described()
    execute(f"DROP TABLE {TABLE}")
    assert [each.says for each in differences(durable.store.table)] == ["the table is missing"]
    assert executed() == durable.store.ddl()
    assert described() == before


#: Columns that have neither NULL nor a default.
REQUIRED = {
    "id", "namespace", "message_id", "actor_name", "queue_name", "payload", "job_timeout", "lease", "backoff",
}  # fmt: skip


def test_each_column_is_added_that_may_be_null_or_has_a_default(
    durable, executed, described, execute, drop_index
):
    @durable_actor
    def charge():
        pass

    message = charge.send()
    before = described()
    fields = [f for f in durable.store.audit._meta.sorted_fields if f.name not in REQUIRED]
    assert len(fields) > 15
    for field in fields:
        # SQLite drops no column that an index has.
        for index in durable.store.table.indexes:
            if field.name in index.columns:
                drop_index(index.name)
        execute(f"ALTER TABLE {TABLE} DROP COLUMN {field.name}")
        assert "ADD COLUMN" in executed()[0]
        assert described() == before
        assert getattr(durable.store.get(message.message_id), field.name) == field.default


def test_a_column_whose_values_nobody_knows_is_named_and_the_others_are_added(
    durable, execute, described
):
    execute(f"ALTER TABLE {TABLE} DROP COLUMN queue_name")
    execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    durable.store.connections.close()
    [left] = migrate(durable.store.table, timedelta(0), lambda sql: None)
    assert left.says.startswith("the column queue_name is missing, and rows")
    assert left.statements == ()
    assert "signature" in described()[0]


@pytest.mark.parametrize("name", INDEXES)
def test_a_missing_index_is_made(executed, described, drop_index, name):
    before = described()
    drop_index(f"{TABLE}_{name}")
    [sql] = executed()
    assert "INDEX" in sql
    assert described() == before


OTHERS = {
    "fewer columns": "CREATE INDEX {name} ON durable_audits (namespace, due_at)",
    "other columns": "CREATE INDEX {name} ON durable_audits (namespace, created_at, id)",
    "another order": "CREATE INDEX {name} ON durable_audits (due_at, namespace, id)",
    "unique": "CREATE UNIQUE INDEX {name} ON durable_audits (namespace, due_at, id)",
    "more columns": "CREATE INDEX {name} ON durable_audits (namespace, due_at, id, state)",
}


@pytest.mark.parametrize("sql", OTHERS.values(), ids=OTHERS)
def test_an_index_of_ours_that_is_another_is_replaced(
    executed, described, drop_index, execute, sql
):
    before = described()
    drop_index(f"{TABLE}_due")
    execute(sql.format(name=f"{TABLE}_due"))
    assert executed() != []
    assert described() == before
    assert executed() == []


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
def test_an_index_of_all_rows_is_another_than_one_of_some(executed, described, drop_index, execute):
    before = described()
    drop_index(f"{TABLE}_due")
    execute(f"CREATE INDEX {TABLE}_due ON {TABLE} (namespace, due_at, id)")
    assert executed() != []
    assert described() == before


def test_an_index_under_another_name_that_serves_as_well_will_do(executed, drop_index, execute):
    drop_index(f"{TABLE}_message_id")
    execute(f"CREATE UNIQUE INDEX of_the_application ON {TABLE} (message_id)")
    assert executed() == []


def test_what_the_application_has_added_stays(durable, executed, described, execute):
    execute(f"ALTER TABLE {TABLE} ADD COLUMN tenant VARCHAR(50)")
    execute(f"ALTER TABLE {TABLE} ADD COLUMN counts INTEGER NOT NULL DEFAULT 7")
    execute(f"CREATE INDEX of_the_application ON {TABLE} (tenant, state)")
    execute(f"CREATE INDEX {TABLE}_of_the_application ON {TABLE} (counts)")
    before = described()
    assert executed() == []
    execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    assert len(executed()) == 1
    columns, indexes = described()
    assert (columns, indexes.keys()) == (before[0], before[1].keys())


def test_rows_that_are_alike_are_said_without_their_values(durable, execute, drop_index, described):
    @durable_actor
    def charge():
        pass

    drop_index(f"{TABLE}_message_id")
    for _ in range(2):
        charge.send()
    execute(f"UPDATE {TABLE} SET message_id = 'a secret'")
    durable.store.connections.close()
    before = described()
    with pytest.raises(DurableError, match="rows have the same value") as caught:
        migrate(durable.store.table, timedelta(0), lambda sql: None)
    assert "secret" not in str(caught.value)
    # Nothing half-made is left, which would go on to refuse rows.
    assert described() == before


def test_two_threads_migrate_at_once_and_each_thing_is_done_once(
    durable, execute, drop_index, described, in_threads
):
    before = described()
    execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
    drop_index(f"{TABLE}_finished")
    drop_index(f"{TABLE}_due")
    execute(f"CREATE INDEX {TABLE}_due ON {TABLE} (namespace, due_at)")
    durable.store.connections.close()
    told = [[], [], []]
    left = in_threads(3, lambda n: migrate(durable.store.table, timedelta(30), told[n].append))
    assert left == [[]] * 3
    assert sorted(map(bool, told)) == [False, False, True]
    assert described() == before


def test_a_table_in_memory_is_migrated_where_it_is(stub_broker, make_durable):
    durable = make_durable(stub_broker, "sqlite:///:memory:")
    durable.store.connections.run(lambda lane: lane.execute_sql(f"DROP INDEX {TABLE}_due"))
    assert len(differences(durable.store.table)) == 1
    assert migrate(durable.store.table, timedelta(0), lambda sql: None) == []


@pytest.fixture
def own_audits(stub_broker, db):
    """The table of an application's own model, which once had none of the columns that it has."""

    class OwnAudit(Audit):
        tenant = peewee.CharField(null=True, index=True)
        order_id = peewee.IntegerField(null=True, unique=True)
        rank = peewee.IntegerField(default=5)
        kind = peewee.CharField(default="it's")
        region = peewee.CharField(constraints=[peewee.SQL("DEFAULT 'eu'")])

        class Meta:
            database = db
            table_name = "own_audits"
            indexes = ((("tenant", "rank"), False),)

    class Before(Audit):
        class Meta:
            database = db
            table_name = "own_audits"

    before = DurableMiddleware(db, audit_model=Before)
    stub_broker.add_middleware(before)
    before.create_tables()
    before.store.connections.close()
    durable = DurableMiddleware(db, audit_model=OwnAudit)
    yield durable
    durable.store.connections.close()


def test_columns_and_indexes_that_a_model_declares_are_added(own_audits, described, execute):
    table = own_audits.store.table
    assert len(differences(table)) == 5 + 3
    assert migrate(table, timedelta(seconds=20), lambda sql: None) == []
    assert differences(table) == []
    columns, indexes = described("own_audits")
    assert {"tenant", "order_id", "rank", "kind", "region"} <= columns.keys()
    added = {(columns, unique) for columns, unique, _ in indexes.values()}
    assert added > {(("order_id",), True), (("tenant",), False), (("tenant", "rank"), False)}
    execute("DROP TABLE own_audits")
    own_audits.create_tables()
    assert described("own_audits") == (columns, indexes)


class Interrupted(Exception):
    """What stops a migration."""


def test_a_migration_that_was_stopped_anywhere_is_taken_up_by_the_next(
    durable, execute, drop_index, described, executed
):
    before = described()
    for stopped_at in range(10):
        execute(f"ALTER TABLE {TABLE} DROP COLUMN signature")
        drop_index(f"{TABLE}_finished")
        drop_index(f"{TABLE}_due")
        execute(f"CREATE INDEX {TABLE}_due ON {TABLE} (namespace, due_at)")
        durable.store.connections.close()
        told = []

        def tell(sql, told=told, stop=stopped_at):
            if len(told) == stop:
                raise Interrupted
            told.append(sql)

        with suppress(Interrupted):
            migrate(durable.store.table, timedelta(0), tell)
        executed()
        assert described() == before
        if len(told) < stopped_at:
            break
    assert stopped_at > 3
