"""How many connections a process holds, and that no thread is left with one."""

import threading

import pytest
import redis
from playhouse.db_url import connect

from dramatiq_durable import Audit, durable_actor

pytestmark = pytest.mark.parity(20)

#: What README and DESIGN.md promise of a process.
WORKER, MONITOR = 5, 2

SOURCE = """
    import os

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    from dramatiq_durable import DurableMiddleware, current_audit, durable_actor

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    broker.add_middleware(DurableMiddleware(heartbeat_interval=20))
    dramatiq.set_broker(broker)


    @durable_actor
    def crawl():
        for _ in range(20):
            current_audit().heartbeat()
"""


@pytest.fixture
def console(console_of, server_url):
    return console_of(server_url)


@pytest.fixture
def durable(stub_broker, server_url, make_durable):
    return make_durable(stub_broker, server_url)


@pytest.fixture
def most(console, eventually):
    """``most(done)``: the most connections the server saw until ``done()``."""

    def watch(done):
        seen = [0]
        eventually(lambda: seen.append(len(console.clients())) or done())
        return max(seen)

    return watch


@pytest.fixture
def settled(console, eventually):
    """``settled(limit)``: the server, which forgets a closed connection a little later, has at most *limit*."""
    return lambda limit: eventually(lambda: len(console.clients()) <= limit, timeout=5)


def test_a_worker_with_eight_threads_holds_at_most_five_connections(
    durable, most, running_worker, beat
):
    together, ended = threading.Barrier(8), []

    @durable_actor(heartbeat_interval=20)
    def crawl():
        together.wait(10)
        beat(50)
        crawled.send()

    @durable_actor
    def crawled():
        ended.append(1)

    for _ in range(16):
        crawl.send()
    with running_worker(threads=8):
        seen = most(lambda: len(ended) == 16)
    assert 2 <= seen <= WORKER


def test_audits_in_a_second_table_take_no_connections_of_their_own(
    stub_broker, server_url, make_durable, most, running_worker, beat
):
    database = connect(server_url)

    class Invoice(Audit):
        class Meta:
            table_name = "invoice_audits"

    Invoice.bind(database)
    durable = make_durable(stub_broker, database)
    ended = []

    @durable_actor(heartbeat_interval=20)
    def charge():
        beat(50)
        ended.append(1)

    @durable_actor(heartbeat_interval=20, audit_model=Invoice)
    def invoice():
        beat(50)
        ended.append(1)

    durable.create_tables()
    for actor in [charge, invoice] * 8:
        actor.send()
    with running_worker(threads=8):
        seen = most(lambda: len(ended) == 16)
    assert 2 <= seen <= WORKER


def test_worker_and_monitor_processes_keep_to_their_limits_and_leave_nothing_behind(
    postgres_url, redis_url, app, eventually, console_of
):
    console = console_of(postgres_url)
    made = app(SOURCE, BROKER_URL=redis_url, DRAMATIQ_DURABLE_DATABASE_URL=postgres_url)
    assert made.run("schema", "create", "app:broker").returncode == 0
    made.python("import app\nfor _ in range(20): app.crawl.send()")
    count = "SELECT COUNT(*) FROM durable_audits WHERE "

    def run(process, limit, done):
        seen = [0]
        eventually(lambda: seen.append(len(console.clients())) or console.one(count + done) == 20)
        process.terminate()
        assert process.wait() == 0
        assert 1 <= max(seen) <= limit
        eventually(lambda: not console.clients())

    console.execute("UPDATE durable_audits SET due_at = 0")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()  # or it would only hold what waits
    run(made.monitor("--interval", "0.05"), MONITOR, "enqueue_count = 2 AND due_at > 0")
    run(made.worker("-t", "8"), WORKER, "state = 'completed'")


def test_threads_that_send_and_end_leave_no_connections_behind(durable, in_threads, settled):
    @durable_actor
    def charge(order_id):
        pass

    for _ in range(4):
        in_threads(10, charge.send)
        settled(WORKER - 1)


def test_workers_that_come_and_go_leave_no_connections_behind(durable, work, settled):
    @durable_actor
    def charge(order_id):
        pass

    for _ in range(4):
        for order_id in range(8):
            charge.send(order_id)
        work(threads=8)
        settled(WORKER)


def test_connections_that_were_dropped_are_not_kept(durable, in_threads, console, settled):
    @durable_actor
    def charge(order_id):
        pass

    for _ in range(4):
        in_threads(8, charge.send)
        console.disconnect_all()
    in_threads(8, charge.send)
    settled(WORKER - 1)


def test_the_applications_own_connection_is_never_opened(
    stub_broker, server_url, make_durable, in_threads, work, beat
):
    database = connect(server_url)
    make_durable(stub_broker, database)
    open_in = []

    @durable_actor
    def charge(order_id):
        open_in.append(not database.is_closed())
        beat()
        open_in.append(not database.is_closed())

    def send(order_id):
        charge.send(order_id)
        return not database.is_closed()

    assert not any(in_threads(4, send))
    work(threads=2)
    assert open_in == [False] * 8
    assert database.is_closed()


def test_nothing_of_ours_idles_in_a_transaction(durable, console, work, monitor):
    if console.scheme == "mysql":
        open_ones = "SELECT COUNT(*) FROM information_schema.innodb_trx"
    else:
        open_ones = "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"

    @durable_actor
    def charge():
        pass

    charge.send()
    work()
    monitor.run_once()
    assert console.clients()
    assert console.one(open_ones) == 0
