"""What becomes of an audit when its job ends in one way or another."""

from datetime import timedelta

import dramatiq
import pytest
from dramatiq.middleware import Retries

from dramatiq_durable import durable_actor
from dramatiq_durable.messages import epoch_of

MINUTE = timedelta(minutes=1)


class NoLuck(Exception):
    pass


@pytest.fixture
def fail(ran):
    def body(*args):
        ran.append(args)
        raise NoLuck("not today")

    return body


# The body returned


@pytest.mark.parity(21)
def test_a_job_whose_body_returned_is_completed(durable, declare, ran, work, audit_of):
    message = declare(ran.append).send(42)
    work()
    assert ran == [42]
    audit = audit_of(message)
    assert (audit.state, audit.due_at, bytes(audit.payload)) == ("completed", None, b"")
    assert audit.failure_count == audit.crash_count == audit.requeue_count == 0
    assert audit.started_at <= audit.finished_at


@pytest.mark.parity(21)
def test_a_job_is_completed_after_all_that_follows_from_it(
    placed, stub_broker, work, audits, audit_of
):
    seen = []

    class Last(dramatiq.Middleware):
        """The after-hooks of the first middleware run last."""

        def after_process_message(self, broker, message, *, result=None, exception=None):
            if message.actor_name == "charge":
                assert placed.flush()
                seen.append(sorted(a.actor_name for a in audits(placed)))
                seen.append(message.get_result(backend=broker.get_results_backend()))
                seen.append(audit_of(message).state)

    stub_broker.middleware.insert(0, Last())

    @durable_actor(store_results=True)
    def charge():
        return "receipt"

    @durable_actor
    def tell(*args):
        pass

    message = charge.send_with_options(on_success="tell", pipe_target=tell.message().asdict())
    work()
    assert seen == [["charge", "tell", "tell"], "receipt", "running"]
    assert audit_of(message).state == "completed"


def test_a_job_whose_next_step_could_not_be_audited_is_released(
    durable, ran, work, recover, audit_of
):
    @durable_actor
    def charge():
        ran.append("charge")
        return "a receipt that is too long"

    @durable_actor(max_payload_size=1)
    def tell(receipt):
        pass

    pipeline = (charge.message() | tell.message()).run()
    work()
    assert ran == ["charge"]
    audit = audit_of(pipeline.messages[0])
    assert (audit.state, audit.failure_count) == ("pending", 1)
    assert recover(minutes=1).recovered == 1
    assert ran == ["charge", "charge"]


# It raised


@pytest.mark.parity(22)
def test_a_job_that_raised_is_released_to_its_retry(
    durable, declare, fail, watcher, ran, running_worker, eventually, audit_of
):
    message = declare(fail, max_retries=3, min_backoff=3_600_000).send(42)
    with running_worker():
        eventually(lambda: audit_of(message).failure_count)
    audit = audit_of(message)
    assert (audit.state, audit.last_error) == ("pending", "NoLuck: not today")
    assert ran == [(42,)]
    retry = watcher.enqueued[-1]
    assert "eta" in retry.options
    assert epoch_of(retry) == audit.epoch > epoch_of(watcher.processed[0])
    assert audit.enqueue_count == 1


def test_the_copies_of_retries_carry_ever_larger_epochs(
    durable, declare, fail, watcher, ran, work, audit_of
):
    message = declare(fail, max_retries=3, min_backoff=1).send()
    work()
    assert len(ran) == 4
    assert [epoch_of(copy) for copy in watcher.processed] == [0, 2, 4, 6]
    audit = audit_of(message)
    assert (audit.start_count, audit.failure_count, audit.enqueue_count) == (4, 4, 1)


def test_a_lost_retry_is_recovered_after_its_delay_the_timeout_and_the_backoff(
    durable, stub_broker, ran, running_worker, eventually, clock, monitor, work, audit_of
):
    @durable_actor(job_timeout=20 * MINUTE)
    def charge():
        ran.append("charge")
        if len(ran) == 1:
            raise dramatiq.Retry(delay=3_600_000)

    message = charge.send()
    with running_worker():
        eventually(lambda: audit_of(message).failure_count)
    stub_broker.flush_all()

    clock.move(minutes=60 + 20, seconds=59)
    assert monitor.run_once().recovered == 0
    clock.move(seconds=1)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["charge", "charge"]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(25)
@pytest.mark.parity(22)
def test_a_job_whose_retries_are_exhausted_comes_back_after_its_backoff(
    durable, stub_broker, fail, ran, work, clock, monitor, audit_of
):
    message = durable_actor(max_retries=0)(fail).send(42)
    work()
    for minutes in (1, 8, 27, 64):
        audit = audit_of(message)
        assert (audit.state, audit.last_error) == ("pending", "NoLuck: not today")
        runs = len(ran)
        clock.move(minutes=minutes - 1, seconds=55)
        monitor.run_once()
        work()
        assert len(ran) == runs
        clock.move(seconds=5)
        assert monitor.run_once().recovered == 1
        work()
        assert len(ran) == runs + 1
    assert len(stub_broker.dead_letters) == len(ran)


@pytest.mark.failure(25)
def test_a_job_that_comes_back_has_its_retries_again(durable, fail, ran, work, recover):
    durable_actor(max_retries=2, min_backoff=1)(fail).send()
    work()
    assert len(ran) == 3
    recover(minutes=1)
    assert len(ran) == 6


@pytest.mark.failure(25)
def test_a_job_that_always_fails_is_dead_at_its_expiration(
    stub_broker, sqlite_db, make_durable, fail, ran, work, recover, audit_of
):
    make_durable(stub_broker, sqlite_db, expiration=timedelta(days=2))
    message = durable_actor(max_retries=0)(fail).send(42)
    work()
    recover(days=1, hours=23, minutes=59)
    assert len(ran) == 2
    assert audit_of(message).state == "pending"
    assert recover(hours=1).dead == 1
    audit = audit_of(message)
    assert (audit.state, audit.due_at) == ("dead", None)
    assert b"42" in bytes(audit.payload)
    recover(days=1)
    assert len(ran) == 2


def test_without_retries_a_job_that_raised_comes_back_after_its_backoff(
    durable, stub_broker, fail, ran, work, recover, audit_of
):
    stub_broker.middleware = [m for m in stub_broker.middleware if not isinstance(m, Retries)]
    # Nobody calls the actor that would make up for it.
    message = durable_actor(on_retry_exhausted="compensate")(fail).send()
    work()
    audit = audit_of(message)
    assert (audit.state, audit.failure_count, audit.last_error) == (
        "pending",
        1,
        "NoLuck: not today",
    )
    assert recover(seconds=55).recovered == 0
    assert recover(seconds=5).recovered == 1
    assert len(ran) == 2


@pytest.mark.failure(25)
def test_a_job_that_another_actor_makes_up_for_is_dead(durable, fail, ran, work, recover, audit_of):
    compensated = []

    @durable_actor
    def compensate(message, retries):
        compensated.append(message["args"])

    message = durable_actor(max_retries=0, on_retry_exhausted="compensate")(fail).send(42)
    work()
    audit = audit_of(message)
    assert (audit.state, audit.last_error) == ("dead", "NoLuck: not today")
    assert b"42" in bytes(audit.payload)
    recover(days=1)
    assert ran == [(42,)]
    assert compensated == [[42]]


def test_a_job_that_nobody_had_to_make_up_for_yet_is_not_dead(
    durable, fail, ran, running_worker, eventually, audit_of
):
    message = durable_actor(max_retries=1, min_backoff=3_600_000, on_retry_exhausted="compensate")(
        fail
    ).send()
    with running_worker():
        eventually(lambda: audit_of(message).failure_count)
    assert audit_of(message).state == "pending"


@pytest.mark.failure(25)
@pytest.mark.parametrize("throws", [NoLuck, (KeyError, NoLuck), Exception])
def test_an_error_that_the_author_called_final_makes_the_job_dead(
    durable, declare, fail, ran, work, recover, audit_of, throws
):
    message = declare(fail, throws=throws, max_retries=3, min_backoff=1).send(42)
    work()
    audit = audit_of(message)
    assert (audit.state, audit.due_at) == ("dead", None)
    assert audit.last_error == "NoLuck: not today"
    assert b"42" in bytes(audit.payload)
    recover(days=1)
    assert ran == [(42,)]


def test_an_error_that_is_not_among_the_final_ones_is_retried(durable, fail, ran, work, audit_of):
    message = durable_actor(throws=KeyError, max_retries=1, min_backoff=1)(fail).send()
    work()
    assert len(ran) == 2
    assert audit_of(message).state == "pending"
