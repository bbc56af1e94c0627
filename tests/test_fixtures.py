"""The fixtures themselves: what the other tests stand on works as they assume."""

import os
import signal

import dramatiq
import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable import Monitor, durable_actor

APP = """
import os
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq_durable import DurableMiddleware, durable_actor

broker = RedisBroker(url=os.environ["BROKER_URL"])
durable = DurableMiddleware()
broker.add_middleware(durable)
dramatiq.set_broker(broker)

@durable_actor
def note(text):
    with open("notes", "a") as notes:
        notes.write(text)
"""


class Note(peewee.Model):
    text = peewee.TextField()


@pytest.fixture
def notes_app(app, redis_url, sqlite_url):
    return app(APP, BROKER_URL=redis_url, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_database(db, turn):
    with Note.bind_ctx(db):
        db.create_tables([Note], safe=False)
        Note.create(text=f"turn {turn}")
        assert Note.select().count() == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_broker(broker, work, turn):
    ran = []

    @dramatiq.actor
    def note(text):
        ran.append(text)

    work()
    assert ran == []
    note.send("ran")
    work()
    assert ran == ["ran"]
    note.send("left for the next turn")


def test_the_broker_is_the_global_one(broker):
    assert dramatiq.get_broker() is broker


def test_work_runs_delayed_messages_and_retries(broker, work):
    ran = []

    @dramatiq.actor(min_backoff=1, max_retries=3)
    def note(text):
        ran.append(text)
        if len(ran) < 3:
            raise ValueError

    note.send_with_options(args=("ran",), delay=50)
    work()
    assert ran == ["ran"] * 3


def test_work_gives_up_after_its_timeout(broker, work):
    @dramatiq.actor
    def note():
        pass

    note.send_with_options(delay=60_000)
    with pytest.raises(TimeoutError, match="1 are with the worker"):
        work(timeout=0.5)
    broker.flush_all()
    work()


def test_work_leaves_no_worker_behind(stub_broker, work):
    @dramatiq.actor
    def early():
        pass

    work()

    @dramatiq.actor(queue_name="declared-later")
    def late():
        pass

    late.send()
    assert stub_broker.queues["declared-later"].qsize() == 1


def test_a_durable_job_is_audited_lost_and_recovered(
    broker, durable, work, clock, monitor, audits, audit_of
):
    ran = []

    @durable_actor
    def note(text):
        ran.append(text)

    message = note.send("ran")
    assert [audit.message_id for audit in audits(durable)] == [message.message_id]
    broker.flush_all()

    clock.move(minutes=12)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["ran"]
    assert audit_of(message).state == "completed"


def test_the_clock_of_a_test_ends_with_it(stub_broker, durable_on_stub, clock):
    before = durable_on_stub.store.sender_clock()
    clock.move(days=1)
    assert durable_on_stub.store.sender_clock() >= before + 86_400_000
    clock.reset()
    assert durable_on_stub.store.sender_clock() < before + 86_400_000


@pytest.fixture
def durable_on_stub(make_durable, stub_broker, sqlite_db):
    return make_durable(stub_broker, sqlite_db)


def test_running_worker_works_until_the_block_ends(broker, running_worker, eventually):
    ran = []

    @dramatiq.actor
    def note(text):
        ran.append(text)

    with running_worker():
        note.send("ran")
        eventually(lambda: ran, message="the actor did not run")
    note.send("too late")
    assert ran == ["ran"]


def test_eventually_says_what_did_not_happen(eventually):
    assert eventually(lambda: 5) == 5
    with pytest.raises(AssertionError, match="the sky did not fall"):
        eventually(lambda: False, timeout=0.05, message="the sky did not fall")


def test_an_app_runs_in_processes(notes_app, eventually):
    assert notes_app.python("import app; app.durable.create_tables()").returncode == 0
    worker = notes_app.worker()
    assert notes_app.python("import app; app.note.send('hello')").returncode == 0
    notes = notes_app.folder / "notes"
    eventually(lambda: notes.exists() and notes.read_text() == "hello", message=worker.output())
    worker.terminate()
    assert worker.wait() == 0


def test_kill_ends_a_process_and_its_children(notes_app, eventually):
    process = notes_app.process(
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
        child.wait()
        """
    )
    process.wait_for("\n")
    child = int(process.output().split()[1])
    process.kill()
    assert process.returncode == -signal.SIGKILL
    eventually(lambda: not exists(child), message="the child is still there")


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_wait_for_shows_the_output_of_a_process_that_ended(notes_app):
    with pytest.raises(AssertionError, match="only this"):
        notes_app.process("print('only this')").wait_for("something else")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_database_server_keeps_its_commits(request, kind, end):
    server = request.getfixturevalue(f"own_{kind}")()
    with server.fresh() as url:
        database = connect(url)
        with Note.bind_ctx(database):
            database.create_tables([Note])
            Note.create(text="kept")
            getattr(server, end)()
            with pytest.raises(peewee.PeeweeException):
                Note.get()
            database.close()
            server.start()
            assert Note.get().text == "kept"
            database.close()


def test_a_redis_of_ones_own_has_the_arguments_it_was_given(own_redis):
    broker = dramatiq.brokers.redis.RedisBroker(url=own_redis("--maxmemory", "5mb").url)
    assert broker.client.config_get("maxmemory") == {"maxmemory": str(5 * 2**20)}
    broker.close()


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_server_can_be_restarted(request, kind, end):
    server = request.getfixturevalue(f"own_{kind}")()
    getattr(server, end)()
    assert not server._answers()
    server.start()
    assert server._answers()


def test_monitor_is_made_at_its_first_use(stub_broker, monitor, durable_on_stub):
    assert isinstance(monitor.run_once.__self__, Monitor)
