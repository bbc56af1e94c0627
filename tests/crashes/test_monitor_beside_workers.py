"""``dramatiq app -f app:run_monitor``: a monitor in a process of its own, started and stopped with the workers."""

import os
import signal
import sys
from pathlib import Path

import pytest

SOURCE = """
    import os

    import dramatiq
    from dramatiq_durable import Monitor, durable_actor
    from tests.crashes.staging import first, note, staged_broker, wait_at

    broker = staged_broker()
    monitoring = False


    class SlowPushes(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if monitoring and message.queue_name == "elsewhere":
                note("pushing")
                wait_at("push")


    broker.add_middleware(SlowPushes())


    @durable_actor
    def job():
        if first("start"):
            note(os.getpid(), "running")
            wait_at("never")
        note("done")


    @durable_actor(queue_name="elsewhere")
    def other():
        pass


    def run_monitor():
        global monitoring
        monitoring = True
        note(os.getpid(), "monitors")
        Monitor(broker, interval=0.2).run()
"""

# The command itself, which can start itself again: `python -m dramatiq` finds no other Python than that of the PATH.
COMMAND = """
    import runpy
    import sys

    sys.argv = {argv}
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(params=["fork", "spawn", "gevent"])
def start(request):
    """``start(stage)``: workers of the default queue, and a monitor beside them."""

    def start(stage):
        name = "dramatiq-gevent" if request.param == "gevent" else "dramatiq"
        argv = [str(Path(sys.executable).with_name(name)), "app:broker", "-p", "1", "-Q", "default"]
        argv += ["-f", "app:run_monitor", *["--use-spawn"] * (request.param == "spawn")]
        process = stage.app.process(COMMAND.format(argv=argv))
        process.wait_for("Fork process 'app:run_monitor' is ready for action.")
        return process

    return start


@pytest.fixture
def stage(make_stage, redis_url, postgres_url):
    return make_stage(SOURCE, redis_url, postgres_url, backoff=[0])


@pytest.fixture
def ended(eventually):
    """``ended(process)``: wait until nothing that it has started runs any more."""

    def wait(process):
        eventually(lambda: not running(process.pid), message="it has left processes behind")

    return wait


def running(group):
    """The processes of *group*, but for those that have ended and that nobody has waited for."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if int(its_group) == group and state != "Z":
            found.append(int(process.name))
    return found


def pid_of(stage, sheet, eventually):
    """The process that has noted itself there last."""
    return int(eventually(lambda: stage.notes(sheet))[-1])


@pytest.mark.failure(12)
def test_the_job_of_a_killed_worker_comes_back(stage, start, ended, eventually):
    process = start(stage)
    message = stage.send("job")
    os.kill(pid_of(stage, "running", eventually), signal.SIGKILL)
    # Without one of its workers Dramatiq ends, for whoever supervises it to start it again.
    assert process.wait() == 1
    ended(process)

    process = start(stage)
    [audit] = stage.finished(message)
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 2, 1)
    assert stage.notes() == ["done"]
    assert len(stage.notes("monitors")) == 2
    process.terminate()
    assert process.wait() == 0
    ended(process)
    assert "Traceback" not in process.output()


@pytest.mark.parity(29)
def test_term_lets_it_finish_its_batch_and_ends_all(stage, start, ended, eventually):
    stage.broker.declare_queue("elsewhere")
    message = stage.send("other", queue_name="elsewhere")
    stage.lose()
    process = start(stage)
    stage.noted("pushing")
    process.terminate()
    monitor = pid_of(stage, "monitors", eventually)
    for _ in range(2):  # as Dramatiq does when its workers have ended, and as who is impatient
        os.kill(monitor, signal.SIGTERM)
    process.wait_for("Worker has been shut down.")
    assert monitor in running(process.pid)
    marked = stage.audit(message)
    assert (marked.enqueue_count, marked.enqueued_at) == (2, None)

    stage.open("push")
    assert process.wait() == 0
    ended(process)
    confirmed = stage.audit(message)
    assert confirmed.enqueue_count == 2
    assert confirmed.enqueued_at is not None
    assert stage.queued("elsewhere") == 1


def test_hup_starts_it_again_with_the_workers(stage, start, ended, eventually):
    process = start(stage)
    before = pid_of(stage, "monitors", eventually)
    os.kill(process.pid, signal.SIGHUP)
    eventually(lambda: len(stage.notes("monitors")) == 2)
    assert before not in running(process.pid)
    process.terminate()
    assert process.wait() == 0
    ended(process)
