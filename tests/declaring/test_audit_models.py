"""Audits in a table of their own, in a database of their own, with columns of their own."""

import traceback

import dramatiq
import peewee
import pytest
from dramatiq.middleware import MiddlewareError

from dramatiq_durable import (
    Audit,
    AuditWriteFailed,
    DurableError,
    DurableMiddleware,
    Monitor,
    current_audit,
    durable_actor,
)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def far_db(tmp_path):
    database = peewee.SqliteDatabase(tmp_path / "far.db")
    yield database
    if not database.is_closed():
        database.close()


@pytest.fixture
def model_of():
    """``model_of(database, table=…)``: a subclass of Audit."""

    def make(database, table="durable_audits"):
        meta = type("Meta", (), {"database": database, "table_name": table})
        return type("Own", (Audit,), {"Meta": meta})

    return make


@pytest.fixture
def declare_refused():
    """``declare_refused(broker)``: a message that another middleware refused to enqueue."""

    class Refuse(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            raise MiddlewareError("not this one")

    def send(broker):
        job = durable_actor(actor_name="job")(lambda: None)
        broker.add_middleware(Refuse())
        message = job.message()
        with pytest.raises(MiddlewareError):
            broker.enqueue(message)
        return message

    return send


def messages_in(database, table="durable_audits"):
    cursor = database.execute_sql(f"SELECT message_id, state FROM {table} ORDER BY id")
    return dict(cursor.fetchall())


@pytest.mark.parity(10)
def test_an_actor_may_keep_its_audits_in_a_table_of_its_own(
    durable, sqlite_db, model_of, ran, work
):
    own = durable_actor(actor_name="own", audit_model=model_of(sqlite_db, "invoice_audits"))(
        ran.append
    )
    common = durable_actor(actor_name="common")(ran.append)
    durable.create_tables()
    first, second = own.send(1), common.send(2)
    assert messages_in(sqlite_db, "invoice_audits") == {first.message_id: "pending"}
    assert messages_in(sqlite_db) == {second.message_id: "pending"}
    work()
    assert ran == [1, 2]
    assert messages_in(sqlite_db, "invoice_audits") == {first.message_id: "completed"}
    assert messages_in(sqlite_db) == {second.message_id: "completed"}


@pytest.mark.parity(10)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_an_actor_may_keep_its_audits_in_a_database_of_its_own(
    stub_broker, durable, sqlite_db, db, model_of, ran, work, clock, monitor
):
    own = durable_actor(actor_name="own", audit_model=model_of(db))(ran.append)
    durable.create_tables()
    message = own.send(1)
    assert messages_in(sqlite_db) == {}
    assert messages_in(db) == {message.message_id: "pending"}
    stub_broker.flush_all()
    clock.move(minutes=11)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == [1]
    assert messages_in(db) == {message.message_id: "completed"}


@pytest.mark.parity(10)
def test_a_send_belongs_to_a_transaction_of_that_database_and_of_no_other(
    durable, sqlite_db, far_db, model_of, ran, work
):
    own = durable_actor(actor_name="own", audit_model=model_of(far_db))(ran.append)
    durable.create_tables()
    with far_db.atomic() as transaction:
        own.send("rolled back")
        transaction.rollback()
    with sqlite_db.atomic() as transaction:
        own.send("of another database")
        transaction.rollback()
    with far_db.atomic():
        own.send("committed")
    work()
    assert ran == ["of another database", "committed"]


@pytest.mark.parity(10)
def test_the_actors_transaction_is_one_of_that_database(durable, far_db, model_of, work):
    seen = []

    @durable_actor(audit_model=model_of(far_db))
    def own():
        audit = current_audit()
        assert audit is not None
        with audit.transaction() as database:
            seen.append(database)

    durable.create_tables()
    message = own.send()
    work()
    assert seen == [far_db]
    assert messages_in(far_db) == {message.message_id: "completed"}


@pytest.mark.parity(10)
def test_the_model_may_be_that_of_all_actors(
    stub_broker, sqlite_db, make_durable, model_of, far_db, ran, work
):
    make_durable(stub_broker, sqlite_db, audit_model=model_of(far_db))
    message = durable_actor(actor_name="job")(ran.append).send(1)
    work()
    assert messages_in(far_db) == {message.message_id: "completed"}
    assert not sqlite_db.table_exists("durable_audits")


class Tenants(DurableMiddleware):
    """Notes in each audit whose it is."""

    def audit_columns(self, broker, message):
        return {"tenant": message.kwargs.get("tenant"), "priority": message.options.get("rank", 0)}


@pytest.fixture
def tenants(stub_broker, db):
    class TenantAudit(Audit):
        tenant = peewee.CharField(null=True)
        priority = peewee.IntegerField(default=0, constraints=[peewee.SQL("DEFAULT 0")])

        class Meta:
            database = db
            table_name = "tenant_audits"

    durable = Tenants(db, audit_model=TenantAudit)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    yield durable
    durable.store.connections.close()


@pytest.mark.parity(11)
def test_a_subclass_of_audit_has_columns_that_the_middleware_fills(
    stub_broker, tenants, db, work, clock
):
    runs = []
    job = durable_actor(actor_name="job")(lambda tenant=None: runs.append(tenant))
    job.send_with_options(kwargs={"tenant": "acme"}, rank=7)
    job.send()
    with db.atomic():
        job.send(tenant="globex")

    def rows():
        cursor = db.execute_sql("SELECT tenant, priority, state FROM tenant_audits ORDER BY id")
        return list(cursor.fetchall())

    assert rows() == [("acme", 7, "pending"), (None, 0, "pending"), ("globex", 0, "pending")]
    stub_broker.flush_all()
    clock.move(minutes=11)
    Monitor(stub_broker).run_once()
    work()
    assert sorted(map(str, runs)) == ["None", "acme", "globex"]
    assert rows() == [("acme", 7, "completed"), (None, 0, "completed"), ("globex", 0, "completed")]


@pytest.mark.parity(11)
def test_the_application_reads_its_columns_with_peewee(tenants, db):
    job = durable_actor(actor_name="job")(lambda tenant: None)
    message = job.send(tenant="acme")
    model = tenants.options["audit_model"]
    [audit] = model.select().where(model.tenant == "acme")
    assert (audit.message_id, audit.state, audit.actor_name) == (
        message.message_id,
        "pending",
        "job",
    )


class Kinds(DurableMiddleware):
    """Fills columns by values that become expressions, and by expressions."""

    def audit_columns(self, broker, message):
        return {"labels": {"a": 1}, "region": peewee.fn.UPPER("eu"), "tenant_id": 5}


@pytest.mark.parity(11)
def test_columns_may_be_of_any_kind_and_have_defaults_that_are_called(stub_broker, sqlite_db):
    numbers = iter(range(10))

    class Tenant(peewee.Model):
        class Meta:
            database = sqlite_db

    class KindsAudit(Audit):
        labels = peewee.JSONField(null=True)
        region = peewee.CharField(null=True)
        tenant = peewee.ForeignKeyField(Tenant, column_name="tenant_id", null=True)
        number = peewee.IntegerField(null=True, default=lambda: next(numbers))

        class Meta:
            database = sqlite_db
            table_name = "kinds_audits"

    durable = Kinds(sqlite_db, audit_model=KindsAudit)
    stub_broker.add_middleware(durable)
    durable.create_tables()
    job = durable_actor(actor_name="job")(lambda: None)
    job.send()
    job.send()
    rows = list(KindsAudit.select().order_by(KindsAudit.id))
    assert [(r.labels, r.region, r.__data__["tenant"], r.number) for r in rows] == [
        ({"a": 1}, "EU", 5, 0),
        ({"a": 1}, "EU", 5, 1),
    ]
    durable.store.connections.close()


@pytest.mark.failure(3)
def test_a_database_that_would_return_ids_counts_what_is_inserted(
    stub_broker, tmp_path, make_durable, declare_refused
):
    database = peewee.SqliteDatabase(tmp_path / "ids.db", returning_clause=True)
    durable = make_durable(stub_broker, database)
    message = declare_refused(stub_broker)
    assert durable.store.get(message.message_id) is None
    database.close()


@pytest.mark.parity(11)
def test_a_unique_column_refuses_what_is_there_already(stub_broker, db):
    class OrderAudit(Audit):
        order_id = peewee.IntegerField(null=True, unique=True)

        class Meta:
            database = db
            table_name = "order_audits"

    class Orders(DurableMiddleware):
        def audit_columns(self, broker, message):
            return {"order_id": message.kwargs.get("order_id")}

    durable = Orders(db, audit_model=OrderAudit)
    stub_broker.add_middleware(durable)
    for _ in range(2):
        durable.create_tables()
    job = durable_actor(actor_name="job")(lambda order_id=None: None)
    job.send(order_id=1)
    with pytest.raises(AuditWriteFailed):
        job.send(order_id=1)
    for order_id in (2, None, None):
        job.send(order_id=order_id)
    assert len(durable.store.list_audits()) == 4
    durable.store.connections.close()


def test_a_column_that_cannot_be_unique_any_more_is_said_without_its_values(stub_broker, db):
    meta = {"database": db, "table_name": "order_audits"}

    def model(**options):
        column = peewee.CharField(null=True, **options)
        return type("Own", (Audit,), {"order_id": column, "Meta": type("Meta", (), meta)})

    class Orders(DurableMiddleware):
        def audit_columns(self, broker, message):
            return {"order_id": "a secret"}

    before = Orders(db, audit_model=model())
    stub_broker.add_middleware(before)
    before.create_tables()
    job = durable_actor(actor_name="job")(lambda: None)
    for _ in range(2):
        job.send()
    before.store.connections.close()
    durable = Orders(db, audit_model=model(unique=True))
    with pytest.raises(DurableError, match="rows have the same value") as caught:
        durable.create_tables()
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    durable.store.connections.close()
