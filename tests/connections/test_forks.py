"""An application that is loaded and connected before it forks, as gunicorn's and Dramatiq's is."""

import pytest

pytestmark = pytest.mark.failure(10)

SOURCE = """
    import os
    import sys
    import threading
    import time

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from playhouse.db_url import connect

    from dramatiq_durable import DurableMiddleware, current_audit, durable_actor

    CHILDREN, SENDS = 4, 25

    broker = StubBroker()
    db = connect(os.environ["DATABASE_URL"])
    durable = DurableMiddleware(db)
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()
    db.close()
    ran = []


    @durable_actor(heartbeat_interval=100)
    def charge(order_id):
        ran.append(order_id)


    @durable_actor(heartbeat_interval=100)
    def beaten():
        audit = current_audit()
        first = due_at()
        while due_at() == first:  # the keeper renews it
            pass
        ran.append("beaten")


    def due_at():
        message_id = current_audit().message_id
        return durable.store.get(message_id).due_at


    def send(name, sends=SENDS):
        for number in range(sends):
            charge.send(f"{name} {number}")


    def at_once(*fns):
        threads = [threading.Thread(target=fn) for fn in fns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until_they_are_gone()


    def until_they_are_gone():
        # A thread that ends locks OpenSSL after its join(); in a child that is for ever.
        tasks = "/proc/self/task"
        while os.path.exists(tasks) and len(os.listdir(tasks)) > threading.active_count():
            time.sleep(0.001)


    def work():
        worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
        worker.start()
        broker.join("default")
        worker.join()
        worker.stop()
        broker.middleware.pop()  # the worker's own
        assert durable.flush()
        until_they_are_gone()


    def fork(body):
        pid = os.fork()
        if pid:
            return pid
        try:
            body()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        sys.exit(0)  # with all that Python does at the end of a process


    def wait(children):
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0] * len(codes), codes


    def check(count, states):
        audits = durable.store.list_audits(limit=1_000)
        assert len(audits) == count, len(audits)
        assert {audit.state for audit in audits} == states
        # In a shared connection answers reach the wrong process.
        for audit in audits:
            assert durable.store.get(audit.message_id).message_id == audit.message_id
        assert db.is_closed() or db.execute_sql("SELECT 42").fetchone()[0] == 42
"""

FORK_WHILE_CONNECTED = """
    from app import *

    db.connect()
    at_once(*[lambda name=name: send(name, 5) for name in "abcd"])
    children = [fork(lambda: at_once(*[lambda: send("child")] * 2)) for _ in range(CHILDREN)]
    send("parent")
    wait(children)
    send("parent again")
    check(20 + 2 * CHILDREN * SENDS + 2 * SENDS, {"pending"})
"""

FORK_IN_THE_MIDDLE_OF_STATEMENTS = """
    from app import *

    send("parent")
    connected, stop = threading.Barrier(3), threading.Event()
    wrong = []

    def go_on():
        durable.store.check_table()
        connected.wait()
        while not stop.is_set():
            names = {audit.actor_name for audit in durable.store.list_audits(limit=10)}
            if names != {"charge"}:
                wrong.append(names)

    busy = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in busy:
        thread.start()
    connected.wait()
    children = [fork(lambda: send("child")) for _ in range(CHILDREN)]
    wait(children)
    stop.set()
    for thread in busy:
        thread.join()
    assert wrong == []
    check((1 + CHILDREN) * SENDS, {"pending"})
"""

WORK_AFTER_WORK = """
    from app import *

    def worker():
        assert ran == ["parent 0", "parent 1", "beaten"], ran
        send("child", 2)
        beaten.send()
        work()
        assert sorted(ran[3:]) == ["beaten", "child 0", "child 1"], ran

    send("parent", 2)
    beaten.send()
    work()
    ran.sort(key=["parent 0", "parent 1", "beaten"].index)
    wait([fork(worker), fork(worker)])
    beaten.send()
    work()
    check(3 + 2 * 3 + 1, {"completed"})
"""


@pytest.fixture
def forking(app, database_url):
    """``forking(code)``: run *code* to its end, without a complaint."""

    def run(code):
        done = app(SOURCE, DATABASE_URL=database_url).python(code)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""

    return run


def test_four_children_of_a_connected_process_send_at_once_and_so_does_their_parent(forking):
    forking(FORK_WHILE_CONNECTED)


# SQLite's memory has a lock, which a child would wait for, whoever uses SQLite.
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_a_process_may_fork_in_the_middle_of_its_threads_statements(forking):
    forking(FORK_IN_THE_MIDDLE_OF_STATEMENTS)


def test_a_worker_works_in_children_of_a_process_that_has_worked(forking):
    forking(WORK_AFTER_WORK)
