"""An interrupt strikes while a job that has failed is given up: that is no crash of its worker.

In a process of its own: one that is struck in the wrong place may hang.
"""

import pytest

from .striking import needs_the_trace

pytestmark = [pytest.mark.failure(22), pytest.mark.failure(24), needs_the_trace]

SOURCE = """
    import logging
    import threading
    from datetime import timedelta

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from dramatiq_durable import DurableMiddleware, Monitor, current_audit, durable_actor
    from dramatiq_durable.store import Store
    from tests.connections.striking import Strike

    # What strikes in an after-hook ends Dramatiq's thread; there are enough of them, and it is no news.
    threading.excepthook = lambda arguments: None
    logging.disable()

    broker = StubBroker()
    durable = DurableMiddleware()
    dramatiq.set_broker(broker)
    points, strikes = {}, {}


    def begin(message_id):
        if message_id not in strikes:
            strikes[message_id] = Strike(points.get(message_id))
            strikes[message_id].begin()


    def end(message_id):
        if message_id in strikes:
            strikes[message_id].end()


    def work(threads):
        worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=threads)
        worker.start()
        broker.join("default")
        worker.join()
        worker.stop()
        broker.middleware.pop()  # the worker's own
        assert durable.flush()


    def strike_everywhere():
        durable.create_tables()
        failed = set()

        @durable_actor(max_retries=1, max_crashes=1, min_backoff=1, max_backoff=1)
        def charge():
            message_id = current_audit().message_id
            if message_id not in failed:
                failed.add(message_id)
                raise RuntimeError("no luck")

        counted = charge.send()
        work(threads=2)
        places = strikes[counted.message_id].passed
        assert places > 20, places
        messages = [charge.send() for _ in range(places)]
        points.update({message.message_id: point for point, message in enumerate(messages, 1)})
        work(threads=places + 2)
        for _ in range(2):
            Store.clock_offset += timedelta(hours=1)
            Monitor(broker).run_once()
            work(threads=2)
        audits = [durable.store.get(message.message_id) for message in messages]
        wrong = {
            point: f"{audit.state} after {audit.crash_count} crashes"
            for point, audit in enumerate(audits, 1)
            if (audit.state, audit.crash_count) != ("completed", 0)
        }
        assert not wrong, f"{len(wrong)} of {places}: {wrong}"
"""

RELEASE = """
    from app import *

    release = Store.release

    def struck(store, held, *args, **options):
        begin(held.message_id)
        try:
            return release(store, held, *args, **options)
        finally:
            end(held.message_id)

    Store.release = struck
    broker.add_middleware(durable)
    strike_everywhere()
"""

AFTER_HOOKS = """
    from app import *

    class Ends(dramatiq.Middleware):
        # Where Dramatiq's TimeLimit could not strike any more.

        def after_process_message(self, broker, message, *, result=None, exception=None):
            end(message.message_id)

    class Begins(dramatiq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            if exception is not None:
                begin(message.message_id)

    broker.add_middleware(Ends(), before=type(broker.middleware[0]))
    broker.add_middleware(durable)
    broker.add_middleware(Begins())
    strike_everywhere()
"""


@pytest.mark.parametrize("code", [RELEASE, AFTER_HOOKS], ids=["release", "after-hooks"])
def test_a_job_that_has_failed_may_be_struck_anywhere_and_is_retried(app, sqlite_url, code):
    done = app(SOURCE, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url).python(code, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
