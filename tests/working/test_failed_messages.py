"""Other middleware calls a message failed, or fails itself, around the body of a job."""

import dramatiq
import pytest
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import AgeLimit, SkipMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend as StubResults

from dramatiq_durable import durable_actor
from tests.sending.conftest import RefusingBroker


class NoLuck(Exception):
    pass


@pytest.fixture(params=["before ours", "after ours"])
def place(request, stub_broker, durable):
    """``place(middleware)``: add it to the broker, before or after ours."""
    where = {"before" if request.param == "before ours" else "after": type(durable)}
    return lambda middleware: stub_broker.add_middleware(middleware, **where)


class FailAfterwards(dramatiq.Middleware):
    def after_process_message(self, broker, message, *, result=None, exception=None):
        message.fail()


def test_a_message_that_another_middleware_fails_after_its_body_is_dead(
    place, durable, ran, work, audit_of
):
    place(FailAfterwards())

    @durable_actor
    def charge():
        ran.append("charge")

    message = charge.send()
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "dead"


def test_the_error_of_a_job_that_is_retried_is_in_its_audit(
    placed, running_worker, eventually, audit_of
):
    @durable_actor(max_retries=3, min_backoff=3_600_000)
    def charge():
        raise NoLuck("not today")

    message = charge.send()
    with running_worker():
        eventually(lambda: audit_of(message).failure_count)
    assert audit_of(message).last_error == "NoLuck: not today"


@pytest.mark.failure(15)
def test_a_copy_past_its_max_age_leaves_the_stored_result_as_it_is(
    stub_broker, place, durable, work, audit_of
):
    place(AgeLimit())
    place(Results(backend=StubResults()))

    @durable_actor(store_results=True)
    def charge():
        return "receipt"

    message = charge.send()
    work()
    stub_broker.enqueue(message.copy(options={"max_age": 1}, message_timestamp=1))
    work()
    assert message.get_result(backend=stub_broker.get_results_backend()) == "receipt"
    assert stub_broker.dead_letters == []
    assert audit_of(message).state == "completed"


class Abort(dramatiq.Middleware):
    on = False

    def before_process_message(self, broker, message):
        if self.on:
            raise SkipMessage


@pytest.mark.failure(15)
def test_a_skipped_copy_of_a_completed_job_leaves_the_stored_result_as_it_is(
    stub_broker, durable, work
):
    abort = Abort()
    stub_broker.add_middleware(abort, before=type(durable))
    stub_broker.add_middleware(Results(backend=StubResults()), before=type(durable))

    @durable_actor(store_results=True)
    def charge():
        return "receipt"

    message = charge.send()
    work()
    abort.on = True
    stub_broker.enqueue(message)
    work()
    assert message.get_result(backend=stub_broker.get_results_backend()) == "receipt"


# What follows from a job, or goes before it, is refused


@pytest.fixture
def refusing(sqlite_db, make_durable):
    before = dramatiq.broker.global_broker
    broker = RefusingBroker()
    make_durable(broker, sqlite_db)
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.broker.global_broker = before
    broker.close()


class Telemetry(dramatiq.Middleware):
    """Tells of each start, or does without."""

    lost = 0

    def before_process_message(self, broker, message):
        if message.actor_name == "charge":
            try:
                broker.get_actor("event").send("started")
            except ConnectionClosed:
                self.lost += 1


def test_what_a_hook_could_not_send_before_the_body_does_not_run_the_job_again(
    refusing, ran, work, audit_of
):
    telemetry = Telemetry()
    refusing.add_middleware(telemetry)
    refusing.refuses = lambda message, delay: message.actor_name == "event"

    @dramatiq.actor
    def event(what):
        pass

    @durable_actor
    def charge():
        ran.append("charge")

    message = charge.send()
    work()
    assert telemetry.lost == 1
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"


@pytest.fixture
def charge(refusing, ran):
    """Fails; one actor is told, and another makes up for it."""

    @dramatiq.actor
    def refund(message, info):
        ran.append("refund")

    @dramatiq.actor
    def tell(message, error):
        ran.append("tell")

    @durable_actor(max_retries=0, on_retry_exhausted="refund", on_failure="tell")
    def charge():
        ran.append("charge")
        raise NoLuck

    return charge


@pytest.mark.failure(14)
def test_a_job_that_was_made_up_for_is_dead_though_nobody_could_be_told(
    refusing, charge, ran, work, recover, audit_of
):
    refusing.refuses = lambda message, delay: message.actor_name == "tell"
    message = charge.send()
    work()
    assert audit_of(message).state == "dead"
    recover(days=1)
    assert ran == ["charge", "refund"]


@pytest.mark.failure(14)
def test_a_job_that_could_not_be_made_up_for_is_not_dead(refusing, charge, ran, work, audit_of):
    refusing.refuses = lambda message, delay: message.actor_name == "refund"
    message = charge.send()
    work()
    assert ran == ["charge", "tell"]
    assert (audit_of(message).state, audit_of(message).last_error) == ("pending", "NoLuck: ")


def test_a_job_whose_compensation_is_nowhere_declared_is_not_dead(durable, work, audit_of):
    @durable_actor(max_retries=0, on_retry_exhausted="refund")
    def charge():
        raise NoLuck

    message = charge.send()
    work()
    assert audit_of(message).state == "pending"


@pytest.mark.failure(25)
def test_an_error_that_is_final_stays_so_in_an_outage_longer_than_the_lease(
    own_postgres, stub_broker, make_durable, ran, running_worker, eventually, audit_of, caplog
):
    server = own_postgres()
    durable = make_durable(stub_broker, server.url)

    @durable_actor(throws=NoLuck, job_timeout=1000, heartbeat_interval=10)
    def charge():
        ran.append("charge")
        server.stop()
        raise NoLuck("for ever")

    message = charge.send()
    with running_worker():
        eventually(lambda: "It will be tried again" in caplog.text)
        end = "while its lease lasted"  # what is said of a release in that case
        with pytest.raises(AssertionError):
            eventually(lambda: end in caplog.text, timeout=1)
        server.start()
        eventually(durable.flush)
    audit = audit_of(message)
    assert (audit.state, audit.last_error) == ("dead", "NoLuck: for ever")
    assert ran == ["charge"]
