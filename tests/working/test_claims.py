"""Between the arrival of a copy and its body."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

import sys
import threading

import dramatiq
import pytest

from dramatiq_durable import current_audit, durable_actor
from dramatiq_durable.messages import EPOCH, MESSAGE_ID


class Finder:
    """Notes which modules worker threads look for."""

    def __init__(self):
        self.looked_for = []

    def find_spec(self, name, path=None, target=None):
        if isinstance(threading.current_thread(), dramatiq.worker.WorkerThread):
            self.looked_for.append(name)


@pytest.mark.failure(22)
def test_no_module_is_looked_for_while_a_job_runs(
    stub_broker, db, make_durable, ran, work, monkeypatch
):
    """An interrupt that strikes then would leave the lock of that import taken, for every thread."""
    make_durable(stub_broker, db)

    @durable_actor
    def charge():
        current_audit().heartbeat()
        ran.append("charge")

    charge.send()
    work()
    finder = Finder()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    charge.send()
    work()
    assert ran == ["charge", "charge"]
    assert finder.looked_for == []


def test_a_copy_that_makes_no_sense_is_not_run_unclaimed(stub_broker, durable, ran, work):
    @durable_actor(max_retries=0)
    def charge():
        ran.append("charge")

    message = charge.message()
    forged = message.copy(options={EPOCH: "one", MESSAGE_ID: message.message_id})
    stub_broker.queues["default"].put(forged.encode())
    work()
    assert ran == []
    assert len(stub_broker.dead_letters) == 1


STRUCK_WHILE_IT_WAITS = """
    import os
    import threading

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from dramatiq_durable import DurableMiddleware, durable_actor
    from dramatiq_durable.messages import EPOCH, MESSAGE_ID
    from tests.connections.striking import Strike


    class StrikeInThreading(Strike):
        # In Python's own locks, events and conditions.

        def _called(self, frame, event, _):
            if frame.f_code.co_filename != threading.__file__:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self._executes


    class StrikesWhileItWaits(dramatiq.Middleware):
        actor_options = {"point"}
        passed = []

        def before_process_message(self, broker, message):
            self.strike = StrikeInThreading(message.options["point"])
            self.strike.begin()

        def after_process_message(self, broker, message, *, result=None, exception=None):
            self.strike.end()
            self.passed.append(self.strike.passed)

        after_skip_message = after_process_message


    broker = StubBroker()
    broker.add_middleware(StrikesWhileItWaits())
    broker.add_middleware(DurableMiddleware("sqlite:////missing/audits.db"))
    dramatiq.set_broker(broker)


    @durable_actor(max_retries=0)
    def charge():
        pass


    def work():
        worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
        worker.start()
        broker.join("default", fail_fast=False)
        worker.stop()


    for point in range(1, 16):
        message = charge.message()
        stamps = {EPOCH: 0, MESSAGE_ID: message.message_id, "point": point}
        broker.queues["default"].put(message.copy(options=stamps).encode())
    worked = threading.Thread(target=work, daemon=True)
    worked.start()
    worked.join(60)
    if worked.is_alive():
        print("struck so far:", StrikesWhileItWaits.passed, flush=True)
        os._exit(1)
    assert sorted(StrikesWhileItWaits.passed) == list(range(1, 16))
"""


@pytest.mark.failure(22)
def test_a_worker_whose_jobs_are_struck_while_they_wait_for_the_database_can_stop(app):
    done = app(STRUCK_WHILE_IT_WAITS).python("import app", timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
