"""Users' own unit tests: durable actors on a StubBroker and SQLite in memory, in one process."""

import threading

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_durable import (
    DurableError,
    DurableMiddleware,
    Monitor,
    RequeueImmediately,
    current_audit,
    durable_actor,
)


@pytest.fixture
def in_memory(use):
    """The middleware of the README's unit test."""
    broker = use(StubBroker())
    durable = DurableMiddleware("sqlite:///:memory:")
    broker.add_middleware(durable)
    durable.create_tables()
    return durable


@pytest.fixture
def worker(in_memory):
    """A worker with eight threads."""
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_timeout=50)
    worker.start()
    yield worker
    worker.stop()


def finish(durable, worker, actor):
    """What the README's ``work()`` does."""
    durable.broker.join(actor.queue_name)
    worker.join()
    assert durable.flush()


def test_a_job_runs_and_its_audit_is_completed(in_memory, worker):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    message = charge.send(42)
    finish(in_memory, worker, charge)
    assert ran == [42]
    assert in_memory.store.get(message.message_id).state == "completed"


def test_a_requeued_job_runs_again_after_a_pass_of_the_monitor(in_memory, worker):
    runs = []

    @durable_actor
    def import_file(name):
        runs.append(name)
        if len(runs) == 1:
            raise RequeueImmediately

    message = import_file.send("a.csv")
    finish(in_memory, worker, import_file)
    assert in_memory.store.get(message.message_id).state == "pending"
    assert Monitor(in_memory.broker).run_once().recovered == 1
    finish(in_memory, worker, import_file)
    assert runs == ["a.csv", "a.csv"]
    assert in_memory.store.get(message.message_id).state == "completed"


def test_a_lost_job_is_recovered(in_memory, clock, work):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    message = charge.send(42)
    in_memory.broker.flush_all()
    clock.move(minutes=11)
    assert Monitor(in_memory.broker).run_once().recovered == 1
    work(in_memory.broker)
    assert ran == [42]
    assert in_memory.store.get(message.message_id).state == "completed"


def test_many_threads_send_and_work_at_once(in_memory, worker):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    barrier = threading.Barrier(6)

    def send(first):
        barrier.wait(30)
        for order_id in range(first, first + 20):
            charge.send(order_id)

    senders = [threading.Thread(target=send, args=(100 * n,)) for n in range(6)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(timeout=30)
    finish(in_memory, worker, charge)
    assert sorted(ran) == sorted(100 * n + i for n in range(6) for i in range(20))
    assert [audit.state for audit in in_memory.store.list_audits()] == ["completed"] * 120


def test_a_monitor_may_run_in_a_thread_beside_it(in_memory, worker, eventually):
    runs = []

    @durable_actor
    def impatient(order_id):
        runs.append(order_id)
        if runs.count(order_id) < 3:
            raise RequeueImmediately

    monitor = Monitor(in_memory.broker, interval=0.01)
    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        for order_id in range(10):
            impatient.send(order_id)
        eventually(lambda: len(runs) == 30)
    finally:
        monitor.stop()
        thread.join(timeout=30)
    finish(in_memory, worker, impatient)
    assert {audit.state for audit in in_memory.store.list_audits()} == {"completed"}
    assert len(runs) == 30


def test_retries_pipelines_and_results_work(in_memory, worker):
    results = StubBackend()
    dramatiq.get_broker().add_middleware(Results(backend=results))
    failures = []

    @durable_actor(store_results=True, min_backoff=1, max_backoff=1)
    def add(a, b):
        if not failures:
            failures.append("first")
            raise RuntimeError("once")
        return a + b

    steps = dramatiq.pipeline([add.message(1, 2), add.message(3)]).run()
    assert steps.get_result(block=True, timeout=30_000) == 6
    finish(in_memory, worker, add)
    assert [audit.state for audit in in_memory.store.list_audits()] == ["completed"] * 2


def test_current_audit_works_and_its_transaction_says_why_it_does_not(in_memory, worker):
    seen = []

    @durable_actor
    def settle():
        audit = current_audit()
        assert audit is not None
        audit.heartbeat()
        seen.append((audit.message_id, audit.token))
        with pytest.raises(DurableError, match="database"), audit.transaction():
            pass

    message = settle.send()
    finish(in_memory, worker, settle)
    assert seen == [(message.message_id, 1)]
    assert in_memory.store.get(message.message_id).state == "completed"


def test_a_transaction_needs_a_database_in_a_file(stub_broker, tmp_path, work):
    durable = DurableMiddleware(f"sqlite:///{tmp_path / 'test.db'}")
    stub_broker.add_middleware(durable)
    durable.create_tables()

    @durable_actor
    def settle():
        audit = current_audit()
        assert audit is not None
        with audit.transaction() as db:
            db.execute_sql("CREATE TABLE settled (id INTEGER)")

    settle.send()
    work()
    assert [audit.state for audit in durable.store.list_audits()] == ["completed"]
    assert "settled" in durable.database.get_tables()
    durable.database.close()
    durable.store.connections.close()


def test_a_coroutine_is_an_actor_too(in_memory):
    broker = dramatiq.get_broker()
    broker.add_middleware(dramatiq.middleware.AsyncIO())
    ran = []

    @durable_actor
    async def crawl(site):
        audit = current_audit()
        assert audit is not None
        ran.append((site, audit.message_id))

    message = crawl.send("example.org")
    worker = dramatiq.Worker(broker, worker_timeout=50)
    worker.start()
    try:
        finish(in_memory, worker, crawl)
    finally:
        worker.stop()
    assert ran == [("example.org", message.message_id)]
    assert in_memory.store.get(message.message_id).state == "completed"


def test_the_error_of_a_job_reaches_the_test_through_join(in_memory, worker):
    @durable_actor(max_retries=0)
    def fail():
        raise ZeroDivisionError("reaches the test")

    message = fail.send()
    with pytest.raises(ZeroDivisionError, match="reaches the test"):
        in_memory.broker.join(fail.queue_name)
    worker.join()
    assert in_memory.store.get(message.message_id).state == "pending"


def test_a_send_in_a_transaction_of_the_database_in_memory_is_sent_at_once(in_memory, worker):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    with in_memory.store.database.atomic():
        message = charge.send(42)
        in_memory.broker.join(charge.queue_name)
        worker.join()
    assert ran == [42]
    assert in_memory.flush()
    assert in_memory.store.get(message.message_id).state == "completed"


def test_calling_the_actor_itself_needs_no_audit(in_memory):
    @durable_actor
    def double(number):
        assert current_audit() is None
        return 2 * number

    assert double(21) == 42
    assert in_memory.store.list_audits() == []


def test_two_middleware_in_memory_are_two_databases(in_memory, use):
    other = DurableMiddleware("sqlite:///:memory:")
    use(StubBroker()).add_middleware(other)
    other.create_tables()
    durable_actor(actor_name="any")(lambda: None).send()
    assert (len(other.store.list_audits()), len(in_memory.store.list_audits())) == (1, 0)
