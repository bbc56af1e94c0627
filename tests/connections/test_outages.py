"""The database server stops, dies, comes back, and drops connections."""

import threading
import time

import pytest

from dramatiq_durable import AuditWriteFailed, durable_actor

pytestmark = pytest.mark.failure(21)

SOURCE = """
    import os
    import time

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    broker.add_middleware(DurableMiddleware(heartbeat_interval=1_000))
    dramatiq.set_broker(broker)


    @durable_actor
    def note(text, until=None):
        with open("started", "a") as started:
            started.write(text + "\\n")
        while until and not os.path.exists(until):
            time.sleep(0.01)
        with open("notes", "a") as notes:
            notes.write(text + "\\n")
"""

SEND = "import app; app.note.send('after')"

SEND_WITHOUT_BROKER = """
    import os
    os.environ["BROKER_URL"] = "redis://127.0.0.1:1"
    import app
    app.note.send("left to the monitor")
"""


@pytest.fixture
def durable(stub_broker, stoppable_url, make_durable):
    return make_durable(stub_broker, stoppable_url)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(durable, ran):
    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    return charge


@pytest.mark.failure(4)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_without_its_server_a_send_raises_soon_and_after_its_start_it_works_again(
    stoppable, how, durable, charge, ran, work, audits
):
    charge.send(1)
    getattr(stoppable, how)()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(AuditWriteFailed):
            charge.send(2)
    assert time.monotonic() - began < 5

    stoppable.start()
    charge.send(3)
    work()
    assert ran == [1, 3]
    assert [audit.state for audit in audits(durable)] == ["completed"] * 2


@pytest.mark.failure(4)
def test_threads_whose_sends_have_failed_all_work_again(
    stoppable, durable, charge, in_threads, work, audits
):
    in_threads(8, charge.send)
    stoppable.kill()

    def refused(order_id):
        with pytest.raises(AuditWriteFailed):
            charge.send(order_id)

    in_threads(8, refused)
    stoppable.start()
    in_threads(8, charge.send)
    work(threads=4)
    assert [audit.state for audit in audits(durable)] == ["completed"] * 16


@pytest.mark.failure(19)
def test_jobs_that_arrive_while_the_server_is_down_wait_for_it_and_run_once(
    stoppable, durable, charge, ran, running_worker, stub_broker, eventually, audits, caplog
):
    for order_id in range(20):
        charge.send(order_id)
    stoppable.stop()
    with running_worker(threads=4):
        eventually(lambda: caplog.text.count(" waits: ") >= 4)
        assert ran == []
        stoppable.start()
        eventually(lambda: len(ran) == 20)
    assert durable.flush()
    assert sorted(ran) == list(range(20))
    assert {(a.state, a.start_count, a.failure_count) for a in audits(durable)} == {
        ("completed", 1, 0)
    }


@pytest.mark.parity(19)
def test_a_running_job_keeps_its_lease_over_a_restart_of_the_server(
    stoppable, durable, running_worker, eventually, audit_of, monitor
):
    begun, end = threading.Event(), threading.Event()

    @durable_actor(heartbeat_interval=1_000)
    def charge():
        begun.set()
        assert end.wait(30)

    message = charge.send()
    with running_worker():
        assert begun.wait(10)
        first = audit_of(message)
        stoppable.kill()
        stoppable.start()
        eventually(lambda: audit_of(message).due_at > first.due_at)
        assert monitor.run_once().recovered == 0
        end.set()
        eventually(lambda: audit_of(message).state == "completed")
    assert audit_of(message).start_count == 1


def test_worker_and_monitor_carry_on_after_the_death_of_the_server(
    stoppable, stoppable_url, redis_url, app, eventually, console_of
):
    made = app(SOURCE, BROKER_URL=redis_url, DRAMATIQ_DURABLE_DATABASE_URL=stoppable_url)
    assert made.run("schema", "create", "app:broker").returncode == 0
    worker, monitor = made.worker(), made.monitor("--interval", "0.1")
    made.python("import app; app.note.send('during', 'back')")
    eventually((made.folder / "started").exists)

    stoppable.kill()
    worker.wait_for("Renewals and completions wait")
    monitor.wait_for("The monitor waits")
    stoppable.start()
    (made.folder / "back").touch()
    made.python(SEND)
    made.python(SEND_WITHOUT_BROKER)
    console = console_of(stoppable_url)
    completed = "SELECT COUNT(*) FROM durable_audits WHERE state = 'completed'"
    eventually(lambda: console.one(completed) == 3)
    notes = (made.folder / "notes").read_text().splitlines()
    assert sorted(notes) == ["after", "during", "left to the monitor"]
    assert (worker.returncode, monitor.returncode) == (None, None)


@pytest.fixture
def console(console_of, server_url):
    return console_of(server_url)


@pytest.fixture
def shared(stub_broker, server_url, make_durable):
    """A DurableMiddleware on a server that nobody stops."""
    return make_durable(stub_broker, server_url)


def test_sends_do_not_notice_that_the_server_has_dropped_all_connections(
    shared, console, in_threads, audits
):
    @durable_actor
    def charge(order_id):
        pass

    sends = 0
    for _ in range(3):
        in_threads(8, charge.send)
        sends += 8
        assert console.disconnect_all() >= 1
    charge.send(0)
    assert len(audits(shared)) == sends + 1


def test_monitor_and_worker_do_not_notice_dropped_connections(
    shared, console, monitor, clock, work, stub_broker, audits
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    for order_id in range(3):
        charge.send(order_id)
        stub_broker.flush_all()
        clock.move(hours=1)
        assert console.disconnect_all()
        assert monitor.run_once().recovered == 1
        assert console.disconnect_all()
        work()
    assert ran == [0, 1, 2]
    assert {audit.state for audit in audits(shared)} == {"completed"}


@pytest.mark.parity(19)
def test_a_running_job_renews_and_completes_over_dropped_connections(
    shared, console, running_worker, eventually, audit_of, beat
):
    begun, end = threading.Event(), threading.Event()

    @durable_actor(heartbeat_interval=200)
    def charge():
        begun.set()
        assert end.wait(30)
        console.disconnect_all()
        beat()
        console.disconnect_all()

    message = charge.send()
    with running_worker():
        assert begun.wait(10)
        for _ in range(3):
            before = audit_of(message).due_at
            assert console.disconnect_all()
            eventually(lambda before=before: audit_of(message).due_at > before)
        end.set()
        eventually(lambda: audit_of(message).state == "completed")
    assert (audit_of(message).start_count, audit_of(message).failure_count) == (1, 0)
