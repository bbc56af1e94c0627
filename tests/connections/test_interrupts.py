"""A time limit of a few milliseconds strikes in the middle of our statements, on each database."""

import pytest

pytestmark = pytest.mark.failure(22)

SOURCE = """
    import time

    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.middleware import TimeLimit, TimeLimitExceeded, default_middleware

    from dramatiq_durable import DurableMiddleware, current_audit, durable_actor
    from tests.connections.striking import strike_after

    STEPS = range(1, 26)  # milliseconds


    class LimitsTheFirstRun(dramatiq.Middleware):
        limited = set()

        def before_process_message(self, broker, message):
            if message.options.get("retries"):
                message.options["time_limit"] = 60_000
                self.limited.discard(message.message_id)
            else:
                self.limited.add(message.message_id)


    class Remembers(StubBroker):
        # Without the locks of a queue, which an interrupt would leave locked.

        sent = []

        def enqueue(self, message, *, delay=None):
            self.emit_before("enqueue", message, delay)
            self.sent.append(message.message_id)
            self.emit_after("enqueue", message, delay)
            return message


    def use(broker):
        durable = DurableMiddleware()
        broker.add_middleware(durable)
        dramatiq.set_broker(broker)
        durable.create_tables()
        return durable


    def work(broker, durable):
        worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=2)
        worker.start()
        broker.join("default")
        worker.join()
        worker.stop()
        assert durable.flush()


    def audits(durable):
        return {audit.message_id: audit for audit in durable.store.list_audits(limit=100_000)}
"""

JOBS = """
    from app import *

    def limits(middleware):
        return TimeLimit(interval=1) if middleware is TimeLimit else middleware()

    broker = StubBroker(middleware=[LimitsTheFirstRun(), *map(limits, default_middleware)])
    broker.emit_after("process_boot")
    durable = use(broker)
    tokens, done, struck = {}, [], []

    @durable_actor(max_retries=3, min_backoff=1, max_backoff=1)
    def charge():
        audit = current_audit()
        tokens.setdefault(audit.message_id, []).append(audit.token)
        # In a destructor, as PyMySQL has them, Python swallows what strikes.
        end = time.monotonic() + 1
        try:
            while audit.message_id in LimitsTheFirstRun.limited and time.monotonic() < end:
                audit.heartbeat()
        except TimeLimitExceeded:
            struck.append(audit.message_id)
            raise
        done.append(audit.message_id)

    for limit in STEPS:
        charge.send_with_options(time_limit=limit)
    work(broker, durable)
    assert len(done) == len(set(done)) == len(STEPS), done
    assert len(struck) > len(STEPS) / 2, struck
    for message_id, audit in audits(durable).items():
        assert audit.state == "completed", audit.state
        assert len(set(tokens[message_id])) == len(tokens[message_id]) <= audit.start_count <= 2
"""

SENDS = """
    from app import *

    broker = Remembers()
    durable = use(broker)
    sent, struck = [], 0

    @durable_actor
    def charge(number):
        pass

    for limit in STEPS:
        end = time.monotonic() + 1
        try:
            strike_after(limit / 1000)
            while time.monotonic() < end:
                sent.append(charge.send(limit).message_id)
        except TimeLimitExceeded:
            struck += 1
            sent.append(charge.send(0).message_id)
    written = audits(durable)
    assert struck > len(STEPS) / 2, struck
    assert set(sent) <= set(broker.sent) <= set(written)
    assert len(written) <= len(sent) + struck, (len(written), len(sent))
"""


@pytest.fixture
def run(app, database_url):
    def run(code):
        done = app(SOURCE, DRAMATIQ_DURABLE_DATABASE_URL=database_url).python(code)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_jobs_whose_time_is_up_in_the_middle_of_a_statement_run_again_and_end_once(run):
    run(JOBS)


def test_sends_that_are_struck_keep_their_contract(run):
    run(SENDS)
