"""``send_many()`` at the edges: interrupts, forks, isolation levels, limits of servers, silent brokers."""

import socket
import threading

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from playhouse.db_url import connect

from dramatiq_durable import durable_actor
from tests.support.databases import MariadbServer

NUMBER = 200


@pytest.mark.failure(22)
def test_an_interrupt_in_the_middle_of_the_transaction_leaves_nothing(
    db, db_durable, charge, ran, work, audits, within
):
    def interrupt(written, sent):
        if written >= 128:
            raise KeyboardInterrupt

    with within(db), pytest.raises(KeyboardInterrupt):
        charge.send_many(((n,) for n in range(NUMBER)), progress=interrupt)
    assert audits(db_durable) == []
    charge.send_many((n,) for n in range(NUMBER))
    work()
    assert ran == list(range(NUMBER))


@pytest.mark.failure(22)
def test_after_an_interrupt_between_the_pushes_a_list_is_sent_by_the_monitor(
    stub_durable, charge, ran, work, recover, clock
):
    def interrupt(written, sent):
        if sent >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        charge.send_many(((n,) for n in range(NUMBER)), progress=interrupt)
    work()
    assert ran == list(range(128))
    clock.move(minutes=11)
    recover()
    assert sorted(ran) == list(range(NUMBER))


def test_an_in_memory_database_takes_a_list_or_nothing_of_it(
    stub_broker, make_durable, charge, ran, work, audits
):
    durable = make_durable(stub_broker, "sqlite:///:memory:")
    with pytest.raises(TypeError):
        charge.send_many([*((n,) for n in range(NUMBER)), (object(),)])
    assert audits(durable) == []
    with durable.store.database.atomic():
        charge.send_many((n,) for n in range(NUMBER))
    work()
    assert ran == list(range(NUMBER))
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(39)
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_lists_are_written_beside_each_other_at_each_isolation_level(
    request,
    stub_broker,
    make_durable,
    charge,
    ran,
    work,
    audits,
    kind,
    level,
    send_beside_each_other,
):
    option = (
        {"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"}
        if kind == "mariadb"
        else {"options": "-c default_transaction_isolation=" + level.lower().replace(" ", "\\ ")}
    )
    db = connect(request.getfixturevalue(f"{kind}_url"), **option)
    durable = make_durable(stub_broker, db)
    messages = [charge.message(n) for n in range(NUMBER)]
    orders = [messages, messages[::-1], messages[100:] + messages[:100]]
    assert send_beside_each_other(durable, orders) == [NUMBER] * 3
    assert len(audits(durable)) == NUMBER
    with db.atomic():
        db.execute_sql("SELECT 1")
        # What others have committed since this transaction began, it may not see.
        other = threading.Thread(target=durable.send_many, args=([charge.message(NUMBER)],))
        other.start()
        other.join()
        durable.send_many(messages)
    db.close()
    work()
    assert sorted(ran) == list(range(NUMBER + 1))


@pytest.fixture
def small_mariadb():
    """The URL of an empty database of a server that takes statements of 4 MB."""
    server = MariadbServer(max_allowed_packet="4M")
    server.start()
    with server.fresh() as url:
        yield url
    server.close()


def test_what_a_server_takes_one_by_one_it_takes_together(
    stub_broker, small_mariadb, make_durable, charge, waiting
):
    make_durable(stub_broker, small_mariadb)
    sizes = (
        [16_000] * 63 + [1_900_000] * 3 + [1_000] * 32 + [900_000]
    )  # on their way they are twice as long
    for size in set(sizes):
        charge.send("x" * size)
    stub_broker.flush_all()
    assert charge.send_many(("x" * size,) for size in sizes) == len(sizes)
    assert waiting(stub_broker) == len(sizes)


FORK = """
    import os

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from playhouse.db_url import connect

    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = StubBroker()
    db = connect(os.environ["DATABASE_URL"])
    durable = DurableMiddleware(db)
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()


    @durable_actor
    def charge(order_id):
        pass


    def fork(written, sent):
        if written != 128:
            return
        pid = os.fork()
        if pid == 0:
            if "sqlite" not in os.environ["DATABASE_URL"]:  # there it would wait for its parent
                charge.send_many([("child",)] * 70)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


    db.close()
    charge.send_many([("parent",)] * 200, progress=fork)
"""


@pytest.mark.failure(10)
def test_a_process_may_fork_in_the_middle_of_a_list(app, database_url, db):
    done = app("", DATABASE_URL=database_url).python(FORK)
    assert done.returncode == 0, done.stderr
    count = db.execute_sql("SELECT COUNT(*) FROM durable_audits").fetchone()[0]
    assert count == (200 if database_url.startswith("sqlite") else 270)


@pytest.fixture
def silence():
    """A listener on a port of its own that accepts connections, and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_000)
    yield listener
    listener.close()


class NewRedisBroker(RedisBroker):
    """Has not learnt yet from any other what it asks Redis for at its first push."""

    _max_unpack_size_val = None


@pytest.mark.failure(3)
def test_a_broker_that_does_not_answer_is_not_asked_for_each_message(
    silence, use, sqlite_db, make_durable, charge, audits
):
    """Each attempt takes as long as the client's timeout."""
    port = silence.getsockname()[1]
    broker = use(NewRedisBroker(url=f"redis://127.0.0.1:{port}/0?socket_timeout=0.01"))
    durable = make_durable(broker, sqlite_db)
    assert charge.send_many((n,) for n in range(NUMBER)) == NUMBER
    assert {audit.enqueue_count for audit in audits(durable)} == {0}
    silence.setblocking(False)
    attempts = 0
    try:
        while True:
            silence.accept()[0].close()
            attempts += 1
    except BlockingIOError:
        pass
    assert 0 < attempts < 10


class Following(dramatiq.Middleware):
    """Sends a list when a job is done, the first time one that is refused."""

    def __init__(self, lists):
        self.lists = lists

    def after_process_message(self, broker, message, *, result=None, exception=None):
        if message.actor_name == "first" and self.lists:
            self.lists.pop(0)()


@pytest.mark.failure(14)
def test_a_job_whose_list_in_a_hook_after_it_is_refused_is_not_complete(
    stub_broker, stub_durable, charge, ran, work, clock, monitor, audits
):
    """As with a single send there."""
    charge(max_payload_size=1_000)
    lists = [lambda: charge.send_many([("x" * 1_000,)]), lambda: charge.send_many([(1,), (2,)])]
    stub_broker.add_middleware(Following(lists))
    first = durable_actor(lambda: None, actor_name="first")
    first.send()
    work()
    assert [(a.state, a.failure_count) for a in audits(stub_durable)] == [("pending", 1)]
    clock.move(minutes=12)
    monitor.run_once()
    work()
    assert ran == [1, 2]
    assert {audit.state for audit in audits(stub_durable)} == {"completed"}
