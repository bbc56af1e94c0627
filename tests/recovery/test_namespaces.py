"""Several applications in one table, and several tables of one application."""

import uuid

import peewee
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, DurableMiddleware, Monitor, durable_actor


@pytest.fixture
def table(sqlite_db):
    """``table(namespace)``: every value in the rows of a namespace."""

    def read(namespace):
        query = "SELECT * FROM durable_audits WHERE namespace = ? ORDER BY id"
        with sqlite_db.connection_context():
            return sqlite_db.execute_sql(query, (namespace,)).fetchall()

    return read


@pytest.fixture
def shop(use, sqlite_db, make_durable):
    """``shop(namespace)``: an application: a broker, and an actor that says what ran where."""

    def shop(namespace, ran=None):
        broker = use(StubBroker())
        broker.durable = make_durable(broker, sqlite_db, namespace=namespace)

        @durable_actor(broker=broker)
        def charge(order_id):
            if ran is not None:
                ran.append((namespace, order_id))

        broker.charge = charge
        return broker

    return shop


@pytest.mark.failure(45)
def test_a_monitor_sends_only_the_messages_of_its_own_namespace(shop, table, ran, work, clock):
    ours, theirs = shop("ours", ran), shop("theirs", ran)
    ours.charge.send(1)
    theirs.charge.send(2)
    ours.flush_all()
    theirs.flush_all()
    clock.move(hours=1)

    before = table("theirs")
    assert Monitor(ours).run_once().recovered == 1
    assert table("theirs") == before
    work(ours)
    work(theirs)
    assert ran == [("ours", 1)]

    assert Monitor(theirs).run_once().recovered == 1
    work(theirs)
    assert ran == [("ours", 1), ("theirs", 2)]


@pytest.mark.failure(45)
def test_a_monitor_expires_and_deletes_only_the_audits_of_its_own_namespace(
    shop, table, work, clock
):
    ours, theirs = shop("ours"), shop("theirs")
    for broker in (ours, theirs):
        broker.charge.send("completed")
        work(broker)
        broker.charge.send("expires")
        broker.flush_all()
    clock.move(hours=1)
    for broker in (ours, theirs):
        assert Monitor(broker).run_once().recovered == 1
        broker.flush_all()
    clock.move(days=4)
    for broker, other in ((ours, "theirs"), (theirs, "ours")):
        before = table(other)
        done = Monitor(broker).run_once()
        assert (done.recovered, done.dead, done.deleted) == (0, 1, 1)
        assert table(other) == before


@pytest.mark.failure(45)
def test_two_brokers_with_the_same_actors_on_one_redis_and_one_table_keep_apart(
    use, redis_url, sqlite_db, make_durable, work, clock
):
    ran, brokers = [], []
    for namespace in ("red", "blue"):
        broker = use(RedisBroker(url=redis_url, namespace=namespace))
        durable = make_durable(broker, sqlite_db)
        brokers.append(broker)

        @durable_actor(broker=broker)
        def charge(order_id, namespace=namespace):
            ran.append((namespace, order_id))

        message = charge.send(namespace)
        assert durable.store.get(message.message_id).namespace == namespace
        broker.flush_all()
    clock.move(hours=1)
    for broker in brokers:
        assert Monitor(broker).run_once().recovered == 1
        work(broker)
    assert ran == [("red", "red"), ("blue", "blue")]


@pytest.mark.failure(45)
def test_the_cancelling_and_retrying_of_a_namespace_leave_the_others_alone(shop, table):
    ours, theirs = shop("ours"), shop("theirs")
    message = theirs.charge.send(1)
    before = table("theirs")
    store = ours.durable.store
    assert list(store.cancel([message.message_id])) == [0]
    assert list(store.retry([message.message_id])) == [0]
    assert store.get(message.message_id) is None
    assert store.list_audits() == []
    assert table("theirs") == before


@pytest.fixture
def other_tables(sqlite_db, tmp_path):
    """Audit models: a table beside the default one, and one in a database of its own."""

    class Invoices(Audit):
        class Meta:
            database = sqlite_db
            table_name = "invoice_audits"

    class Archive(Audit):
        class Meta:
            database = peewee.SqliteDatabase(tmp_path / "archive.db")
            table_name = "durable_audits"

    return Invoices, Archive


@pytest.fixture
def actors(stub_broker, stub_durable, other_tables, ran):
    """One actor for each table."""
    made = []
    for model in (None, *other_tables):

        @durable_actor(actor_name=f"charge-{uuid.uuid4().hex}", audit_model=model)
        def charge(order_id):
            ran.append(order_id)

        made.append(charge)
    stub_durable.create_tables()
    return made


@pytest.mark.parity(10)
def test_each_audit_is_in_the_table_that_its_actor_names(stub_durable, other_tables, actors):
    sent = [actor.send(42) for actor in actors]
    default, *others = stub_durable.stores()
    assert [store.audit for store in others] == list(other_tables)
    for message, store in zip(sent, (default, *others), strict=True):
        assert [audit.message_id for audit in store.list_audits()] == [message.message_id]


@pytest.mark.parity(10)
def test_one_pass_recovers_expires_and_deletes_in_every_table(
    stub_broker, stub_durable, actors, ran, work, clock, monitor, audits
):
    for number, actor in enumerate(actors):
        actor.send(number)
    stub_broker.flush_all()
    clock.move(hours=1)
    assert monitor.run_once().recovered == 3
    work()
    assert sorted(ran) == [0, 1, 2]
    assert {audit.state for audit in audits(stub_durable)} == {"completed"}
    clock.move(days=1)
    assert monitor.run_once().deleted == 3

    for actor in actors:
        actor.send("expires")
    for recovered, dead in ((3, 0), (0, 3)):
        stub_broker.flush_all()
        clock.move(days=4)
        done = monitor.run_once()
        assert (done.recovered, done.dead) == (recovered, dead)


@pytest.mark.parity(10)
@pytest.mark.failure(45)
def test_a_namespace_holds_in_a_table_of_ones_own_too(
    use, sqlite_db, make_durable, other_tables, work, clock
):
    invoices, _ = other_tables
    ran, brokers = [], []
    for namespace in ("ours", "theirs"):
        broker = use(StubBroker())
        durable = make_durable(broker, sqlite_db, namespace=namespace)

        @durable_actor(broker=broker, audit_model=invoices)
        def charge(order_id, namespace=namespace):
            ran.append((namespace, order_id))

        durable.create_tables()
        charge.send(42)
        broker.flush_all()
        brokers.append(broker)
    clock.move(hours=1)
    for broker in brokers:
        assert Monitor(broker).run_once().recovered == 1
        work(broker)
    assert ran == [("ours", 42), ("theirs", 42)]


def test_an_audit_model_without_a_database_is_refused_when_the_actor_is_declared(
    stub_broker, stub_durable
):
    class Homeless(Audit):
        pass

    with pytest.raises(ValueError, match="database"):
        durable_actor(actor_name="homeless", audit_model=Homeless)(lambda: None)


def test_the_namespace_is_the_brokers_unless_the_middleware_names_one(use, redis_url, sqlite_db):
    for given, expected in ((None, "dramatiq-red"), ("own", "own")):
        broker = use(RedisBroker(url=redis_url, namespace="dramatiq-red"))
        durable = DurableMiddleware(sqlite_db, namespace=given)
        broker.add_middleware(durable)
        durable_actor(actor_name="any")(lambda: None)
        assert durable.namespace == expected
