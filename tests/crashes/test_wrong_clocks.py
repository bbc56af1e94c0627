"""The clocks of sender, worker and monitor are wrong; what counts is the database's.

SQLite has no clock of its own: all of its processes are on one machine, and share that one's.
"""

import json
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from .staging import LONG

pytestmark = pytest.mark.failure(37)

SOURCE = """
    import time

    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, number, staged_broker, wait_at

    broker = staged_broker()


    @durable_actor
    def job(text, gate=None):
        run = number(text)
        note(f"{text} {run}")
        note(time.time(), "clocks")
        if gate is not None and run == 1:
            wait_at(gate)
"""

SEND = """
    import json
    import time
    from app import job

    message = job.send_with_options(args={}, **{})
    print(json.dumps([message.message_id, time.time()]))
"""

# libfaketime does not understand how Python sleeps, until a moment of the monotonic clock.
SITE = """
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds)
"""

LASTING = {"heartbeat_interval": 2_000, "job_timeout": 10_000}
SHORT = {"heartbeat_interval": 500, "job_timeout": 1_000}
#: Seconds that the clocks of sender, worker and monitor are ahead.
WRONG = {"postgres": (300, -300, 300), "mariadb": (-300, 300, -300)}


class WrongStage:
    """A stage whose processes have wrong clocks; this one's is right, and so is the database's."""

    def __init__(self, stage, libfaketime, sender, worker, monitor):
        self.stage = stage
        self.libfaketime = libfaketime
        self.ahead = {"sender": sender, "worker": worker, "monitor": monitor}
        (stage.app.folder / "sitecustomize.py").write_text(SITE)

    @contextmanager
    def clock_of(self, role):
        """For the processes that are started meanwhile."""
        environment = self.stage.app.environment
        before = dict(environment)
        environment["PYTHONPATH"] += f":{self.stage.app.folder}"
        environment["LD_PRELOAD"] = self.libfaketime
        environment["FAKETIME"] = f"{self.ahead[role]:+d}"
        environment["DONT_FAKE_MONOTONIC"] = "1"
        yield
        environment.clear()
        environment.update(before)

    def send(self, text, gate=None, **options):
        """What the audit of a message that another process has sent is found by."""
        with self.clock_of("sender"):
            done = self.stage.app.python(SEND.format((text, gate), options))
        assert done.returncode == 0, done.stderr
        message_id, its_clock = json.loads(done.stdout)
        self.check(its_clock, "sender")
        return SimpleNamespace(message_id=message_id, actor_name="job")

    def check(self, clock, role):
        assert abs(float(clock) - now().timestamp() - self.ahead[role]) < 60

    def worker(self):
        with self.clock_of("worker"):
            return self.stage.worker()

    def monitor(self):
        with self.clock_of("monitor"):
            return self.stage.monitor()


@pytest.fixture(params=WRONG)
def wrong(request, make_stage, redis_url, libfaketime):
    url = request.getfixturevalue(f"{request.param}_url")
    stage = make_stage(SOURCE, redis_url, url, backoff=[0, LONG])
    return WrongStage(stage, libfaketime, *WRONG[request.param])


def now():
    return datetime.now(timezone.utc)


def test_wrong_clocks_of_sender_worker_and_monitor_have_no_effect(wrong, eventually):
    stage = wrong.stage
    began = now()
    lost = wrong.send("lost", **SHORT)
    stage.lose()
    crashed = wrong.send("crashed", "never", **SHORT)
    dying = wrong.worker()
    stage.noted("crashed 1")
    dying.kill()
    abandoned = stage.audit(crashed)

    kept = wrong.send("kept", "end", **LASTING)
    delayed = wrong.send("delayed", delay=1_000, **SHORT)
    wrong.worker()
    wrong.monitor()
    audits = stage.finished(lost, crashed, delayed)
    assert stage.audit(kept).state == "running"
    stage.open("end")
    audits += stage.finished(kept)
    ended = now()

    assert {audit.state for audit in audits} == {"completed"}
    stage.noted("lost 1", "crashed 1", "crashed 2", "delayed 1", "kept 1")
    counts = [(audit.start_count, audit.crash_count) for audit in audits]
    assert counts == [(1, 0), (2, 1), (1, 0), (1, 0)]
    for audit in audits:
        times = [audit.created_at, audit.enqueued_at, audit.started_at, audit.finished_at]
        assert [began <= each.replace(tzinfo=timezone.utc) <= ended for each in times] == [True] * 4
    for clock in stage.notes("clocks"):
        wrong.check(clock, "worker")
    [lost, crashed, delayed, kept] = audits
    # Each was sent again when its time was over by the database's clock, and not before.
    assert lost.enqueue_count == 2
    assert lost.enqueued_at - lost.created_at >= timedelta(seconds=1)
    assert crashed.started_at >= abandoned.due_at
    assert delayed.scheduled_at - delayed.created_at == timedelta(seconds=1)
    assert kept.enqueue_count == 1
