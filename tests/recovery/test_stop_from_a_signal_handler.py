"""A signal handler may call ``stop()`` wherever it has interrupted ``run()``.

In a process of its own, for one that waits for itself waits for ever.
"""

import pytest

pytestmark = pytest.mark.parity(29)

CODE = """
    import faulthandler
    import os
    import queue
    import selectors
    import sys
    import threading
    from datetime import timedelta

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    import dramatiq_durable
    from dramatiq_durable import DurableMiddleware, Monitor, durable_actor
    from dramatiq_durable.store import Store

    OURS = os.path.dirname(dramatiq_durable.__file__)
    WAITS = {module.__file__ for module in (threading, queue, selectors)}
    PASSES = 3

    broker = StubBroker()
    durable = DurableMiddleware()
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()


    @durable_actor
    def charge():
        pass


    class Interrupted:
        # stop() is called at the *point*-th place, from 1, of what it waits with, or after some passes.

        def __init__(self, monitor, point):
            self.monitor, self.point = monitor, point
            self.met, self.passes = 0, 0

        def run(self):
            durable.store.database.query_hooks[:] = [self.executed]
            sys._getframe().f_trace_opcodes = True
            sys.settrace(self.called)
            try:
                self.monitor.run()
            finally:
                sys.settrace(None)

        def executed(self, event):
            self.passes += 'finished_at" <=' in event.sql
            if self.passes == PASSES:
                self.monitor.stop()

        def called(self, frame, event, _):
            if waits_for_us(frame):
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
                return self.goes_on

        def goes_on(self, frame, event, _):
            if event == "opcode":
                self.met += 1
                if self.met == self.point:
                    sys.settrace(None)
                    self.monitor.stop()
                    return None
            return self.goes_on


    def waits_for_us(frame):
        if frame.f_code.co_filename not in WAITS:
            return False
        while frame.f_code.co_filename in WAITS:
            frame = frame.f_back
        return frame.f_code.co_filename.startswith(OURS)


    point, interrupted = 0, None
    while interrupted is None or interrupted.met == interrupted.point:
        with durable.store.database.connection_context():
            durable.store.audit.delete().execute()
        for _ in range(2):
            charge.send()
        broker.flush_all()
        Store.clock_offset += timedelta(hours=1)
        point += 1
        # It waits between two messages, and between two passes.
        interrupted = Interrupted(Monitor(broker, interval=0.001, max_rate=200), point)
        faulthandler.dump_traceback_later(5, exit=True)
        interrupted.run()
        faulthandler.cancel_dump_traceback_later()
"""


def test_stop_does_not_wait_for_what_it_has_interrupted(app, sqlite_url):
    done = app(CODE, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url).python("import app", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
