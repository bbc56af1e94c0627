"""Sends with a ``unique_key`` whose answers are lost, and tables that have no column for it."""

import pytest

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor
from dramatiq_durable.errors import SchemaMismatch
from tests.support.proxy import Proxy


@pytest.fixture
def ran():
    return []


@pytest.fixture
def proxy(server_url):
    proxy = Proxy(server_url)
    yield proxy
    proxy.close()


@pytest.fixture
def near(stub_broker, proxy, make_durable, server_url):
    """The same audits, for somebody whose answers are not lost."""
    make_durable(stub_broker, proxy.url)
    middleware = DurableMiddleware(server_url)
    yield middleware.store
    middleware.store.connections.close()


@pytest.fixture
def once(ran):
    """``once(order_id)``: the message_id that a send with the test's key returns."""
    charge = None

    def send(order_id):
        nonlocal charge
        charge = charge or durable_actor(ran.append, actor_name="charge")
        return charge.send_with_options(args=(order_id,), unique_key="k").message_id

    return send


@pytest.mark.failure(2)
@pytest.mark.parametrize(
    ("before", "verb"),
    [("unused", "INSERT"), *(("finished", verb) for verb in ("INSERT", "SELECT", "UPDATE"))],
)
def test_a_send_whose_answer_is_lost_is_made_once(near, proxy, once, ran, work, before, verb):
    if before == "finished":
        once(0)
        work()
        del ran[:]
    quote = "`" if near.connections.database.__class__.__name__.startswith("MySQL") else '"'
    texts = {"INSERT": "INSERT ", "SELECT": "SELECT ", "UPDATE": f"{quote}unique_key{quote} = "}
    proxy.lose_the_reply_to(texts[verb])
    one = once(1)
    assert proxy.cuts == 1
    assert once(2) == one
    assert near.get(one).state == "pending"
    work()
    assert ran == [1]
    assert len(near.list_audits()) == (2 if before == "finished" else 1)


@pytest.fixture
def old_table(stub_broker, db, make_durable):
    """The table has no such column yet."""
    make_durable(stub_broker, db)
    with db.connection_context():
        mysql = db.__class__.__name__.startswith("MySQL")
        db.execute_sql(
            f"DROP INDEX durable_audits_unique_key{' ON durable_audits' if mysql else ''}"
        )
        db.execute_sql("ALTER TABLE durable_audits DROP COLUMN unique_key")


@pytest.mark.failure(43)
@pytest.mark.usefixtures("old_table")
def test_without_the_column_a_key_is_refused_with_the_command_to_run(once):
    with pytest.raises(AuditWriteFailed, match="`dramatiq-durable schema migrate") as failed:
        once(1)
    assert isinstance(failed.value.__cause__, SchemaMismatch)


@pytest.mark.failure(43)
@pytest.mark.usefixtures("old_table")
def test_without_the_column_other_messages_are_sent(db):
    durable_actor(print, actor_name="charge").send(1)
    with db.connection_context():
        assert db.execute_sql("SELECT COUNT(*) FROM durable_audits").fetchone() == (1,)
