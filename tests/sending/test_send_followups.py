"""What a finished job sends on fails once: it is sent all the same.

Dramatiq swallows the errors of its own follow-ups and acks the job, so
that the audits alone know of them.
"""

import dramatiq
import pytest
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend as StubLimits

from dramatiq_durable import durable_actor

pytestmark = pytest.mark.failure(14)


class Once:
    """Refuses the first message to *actor_name*, for a broker's ``refuses``."""

    def __init__(self, actor_name):
        self.actor_name = actor_name
        self.refused = 0

    def __call__(self, message, delay):
        if message.actor_name != self.actor_name or self.refused:
            return False
        self.refused += 1
        return True


@pytest.fixture
def durable(refusing_broker, sqlite_db, make_durable):
    refusing_broker.add_middleware(GroupCallbacks(StubLimits()))
    return make_durable(refusing_broker, sqlite_db)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def first(durable, ran):
    @durable_actor
    def first():
        ran.append("first")
        return "from the first"

    return first


@pytest.fixture(params=["durable", "not durable"])
def then(request, durable, ran):
    declare = durable_actor if request.param == "durable" else dramatiq.actor

    @declare
    def then(*args):
        ran.append("then")

    return then


@pytest.fixture
def recover(work, monitor, clock):
    """What a monitor makes of it within *minutes*."""

    def run(minutes):
        clock.move(minutes=minutes)
        monitor.run_once()
        work()

    return run


def test_a_pipeline_step_that_the_broker_refused_runs(
    refusing_broker, first, then, ran, work, recover, audits, durable
):
    refusing_broker.refuses = Once("then")
    (first.message() | then.message()).run()
    work()
    assert refusing_broker.refuses.refused == 1
    assert ran == ["first"]

    recover(minutes=1)
    assert ran.count("then") == 1
    assert {audit.state for audit in audits(durable)} == {"completed"}


def test_a_success_callback_that_the_broker_refused_runs(
    refusing_broker, first, then, ran, work, recover, audits, durable
):
    refusing_broker.refuses = Once("then")
    first.send_with_options(on_success="then")
    work()
    assert ran == ["first"]

    recover(minutes=1)
    assert ran.count("then") == 1
    assert {audit.state for audit in audits(durable)} == {"completed"}


def test_a_durable_job_with_a_refused_durable_follow_up_runs_once(
    refusing_broker, first, durable, ran, work, recover
):
    """The follow-up has an audit of its own, so that there is no reason to repeat the first."""

    @durable_actor
    def then(result):
        ran.append(result)

    refusing_broker.refuses = Once("then")
    (first.message() | then.message()).run()
    work()
    recover(minutes=1)
    assert ran == ["first", "from the first"]


def test_a_durable_group_callback_that_the_broker_refused_runs(
    refusing_broker, first, durable, ran, work, recover
):
    @durable_actor
    def then():
        ran.append("then")

    refusing_broker.refuses = Once("then")
    group = dramatiq.group([first.message(), first.message()])
    group.add_completion_callback(then.message())
    group.run()
    work()
    assert ran == ["first", "first"]

    recover(minutes=1)
    assert ran == ["first", "first", "then"]


def test_a_retry_that_the_broker_refused_runs(refusing_broker, durable, ran, work, recover):
    @durable_actor(max_retries=3, min_backoff=100, max_backoff=100)
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            # The copy that Retries is about to send.
            refusing_broker.refuses = Once("charge")
            raise RuntimeError("not yet")

    charge.send()
    work()
    assert refusing_broker.refuses.refused == 1
    assert ran == ["charge"]

    recover(minutes=12)
    assert ran == ["charge", "charge"]


def test_a_step_whose_audit_could_not_be_written_runs(
    stub_broker, postgres_url, make_proxy, make_durable, work, monitor, clock, audits, eventually
):
    proxy = make_proxy(postgres_url)
    ran = []

    class CutOff(dramatiq.Middleware):
        """The database goes away when the first job is done, before its step is sent."""

        def after_process_message(self, broker, message, *, result=None, exception=None):
            if ran == ["first"]:
                proxy.down()

        def after_ack(self, broker, message):
            if ran == ["first"]:
                proxy.up()

    durable = make_durable(stub_broker, proxy.url)
    stub_broker.add_middleware(CutOff())

    @durable_actor
    def first():
        ran.append("first")

    @durable_actor
    def then(result):
        ran.append("then")

    (first.message() | then.message()).run()
    work()
    assert ran == ["first"]

    def released():
        return [(a.state, a.failure_count) for a in audits(durable)] == [("pending", 1)]

    eventually(released)
    clock.move(minutes=2)
    monitor.run_once()
    work()
    assert ran.count("then") == 1
    assert {audit.state for audit in audits(durable)} == {"completed"}
