"""An interrupt strikes at each point of our code in turn.

In a process of its own: one that is struck in the wrong place may hang.
"""

import pytest

from .striking import needs_the_trace

pytestmark = [pytest.mark.failure(22), needs_the_trace]

SOURCE = """
    import os
    import threading

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.middleware import TimeLimitExceeded

    from dramatiq_durable import DurableMiddleware, current_audit, durable_actor
    from tests.connections.striking import Strike, points

    broker = StubBroker()
    durable = DurableMiddleware()
    dramatiq.set_broker(broker)


    def work():
        worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
        worker.start()
        broker.join("default")
        worker.join()
        worker.stop()
        broker.middleware.pop()  # the worker's own
        assert durable.flush()


    def in_another_thread(act):
        # Others must not wait for ever for what the struck one has left behind.
        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        thread.join(10)
        if thread.is_alive():
            print("another thread waits for ever", flush=True)
            os._exit(1)


    def audit_of(message):
        return durable.store.get(message.message_id)
"""

SENDS = """
    from app import *

    broker.add_middleware(durable)
    durable.create_tables()
    returned, ran = [], []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    charge.send("the first")
    for point in range(1, points(lambda: charge.send("counted")) + 1):
        try:
            with Strike(point).armed():
                charge.send(point)
            returned.append(point)
        except TimeLimitExceeded:
            charge.send(-point)
            returned.append(-point)
        in_another_thread(lambda: durable.store.get("any"))
    assert sum(order_id < 0 for order_id in returned) > 100, returned
    work()
    assert set(returned) < set(ran)
    assert len(ran) == len(set(ran))
"""

HEARTBEATS = """
    from app import *

    broker.add_middleware(durable)
    durable.create_tables()
    struck = []

    @durable_actor(max_retries=0)
    def charge():
        beat = current_audit().heartbeat
        beat()
        for point in range(1, points(beat) + 1):
            try:
                with Strike(point).armed():
                    beat()
            except TimeLimitExceeded:
                beat()
                struck.append(point)
            in_another_thread(lambda: durable.store.get("any"))

    message = charge.send()
    work()
    assert len(struck) > 50, struck
    assert (audit_of(message).state, audit_of(message).start_count) == ("completed", 1)
"""

JOBS = """
    from app import *

    class StrikesOnce(dramatiq.Middleware):
        # Each message's first run, from where Dramatiq's TimeLimit could to where it could.

        actor_options = {"point"}

        def __init__(self):
            self.first = {}

        def before_process_message(self, broker, message):
            if message.message_id not in self.first:
                self.first[message.message_id] = Strike(message.options.get("point"))
                self.first[message.message_id].begin()

        def after_process_message(self, broker, message, *, result=None, exception=None):
            self.first[message.message_id].end()

        after_skip_message = after_process_message

    strikes = StrikesOnce()
    broker.add_middleware(strikes, before=type(broker.middleware[0]))
    broker.add_middleware(durable)
    durable.create_tables()
    tokens = {}

    @durable_actor(max_retries=3, min_backoff=1, max_backoff=1)
    def charge():
        audit = current_audit()
        tokens.setdefault(audit.message_id, []).append(audit.token)

    counted = charge.send()
    work()
    places = strikes.first[counted.message_id].passed
    assert places > 100, places
    messages = [charge.send_with_options(point=point) for point in range(1, places + 1)]
    work()
    in_another_thread(lambda: durable.store.get("any"))
    for message in messages:
        audit, ran = audit_of(message), tokens[message.message_id]
        assert audit.state == "completed", (message, audit.state)
        assert len(set(ran)) == len(ran) <= audit.start_count <= 2, (message, ran)
"""


@pytest.fixture
def run(app, sqlite_url):
    def run(code):
        done = app(SOURCE, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url).python(code)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_a_send_may_be_struck_anywhere(run):
    run(SENDS)


def test_a_heartbeat_may_be_struck_anywhere(run):
    run(HEARTBEATS)


def test_a_job_may_be_struck_anywhere_between_its_claim_and_its_end(run):
    run(JOBS)
