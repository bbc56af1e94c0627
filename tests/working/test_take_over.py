"""A worker stands still for longer than its lease, and another one takes its job over."""

# mypy: disable-error-code="union-attr"
# In a durable job current_audit() is never None.

from datetime import timedelta

import pytest

from dramatiq_durable import LeaseLost, current_audit, durable_actor

pytestmark = pytest.mark.failure(16)


@pytest.fixture
def gates(gate):
    """Where the first run waits, and where the second does."""
    return gate, type(gate)()


@pytest.fixture
def take_over(clock, monitor, eventually):
    """``take_over(gate)``: let the lease run out and a monitor act, until a second run is at *gate*.

    A heartbeat may come between the one and the other; then both are done again.
    """

    def run(gate):
        def recovered():
            clock.move(hours=1)
            return monitor.run_once().recovered

        eventually(recovered)
        gate.wait_for_body()

    return run


@pytest.fixture
def tokens():
    return []


@pytest.fixture
def declare_long(durable, ran, tokens, gates):
    """``declare_long(**options)``: an actor whose runs 0 and 1 stay at their gates."""

    def declare(fails=False, **options):
        @durable_actor(**options)
        def charge():
            run = len(tokens)
            tokens.append(current_audit().token)
            try:
                gates[run].enter()
            except LeaseLost:
                ran.append((run, "lost"))
                raise
            ran.append((run, "end"))
            if run == 0 and fails:
                raise RuntimeError("no luck")

        return charge

    return declare


@pytest.mark.parity(18)
def test_what_the_first_still_writes_is_refused(
    declare_long, take_over, gates, ran, tokens, running_worker, eventually, audit_of, caplog
):
    first, second = gates
    charge = declare_long(heartbeat_interval=None)
    with running_worker(threads=2), first, second:
        message = charge.send()
        first.wait_for_body()
        take_over(second)
        before = dict(audit_of(message).__data__)
        first.open()
        eventually(lambda: "no longer ours" in caplog.text)
        assert ran == [(0, "end")]
        assert dict(audit_of(message).__data__) == before
        assert (before["state"], before["epoch"]) == ("running", tokens[1])
    assert ran == [(0, "end"), (1, "end")]
    assert tokens[0] < tokens[1]
    audit = audit_of(message)
    assert (audit.state, audit.start_count, audit.crash_count) == ("completed", 2, 1)


def test_a_failure_of_the_first_is_not_the_seconds_and_its_retry_is_skipped(
    declare_long, take_over, gates, ran, tokens, running_worker, eventually, audit_of, caplog
):
    first, second = gates
    charge = declare_long(fails=True, heartbeat_interval=None, max_retries=3, min_backoff=1)
    with running_worker(threads=2), first, second:
        message = charge.send()
        first.wait_for_body()
        take_over(second)
        first.open()
        eventually(lambda: f"{message.message_id} was skipped" in caplog.text)
        audit = audit_of(message)
        assert (audit.state, audit.epoch, audit.failure_count) == ("running", tokens[1], 0)
    assert ran == [(0, "end"), (1, "end")]
    assert audit_of(message).state == "completed"


@pytest.mark.failure(17)
@pytest.mark.parity(18)
def test_lease_lost_is_raised_in_the_first_run_alone(
    declare_long, take_over, gates, ran, running_worker, eventually, audit_of
):
    first, second = gates
    charge = declare_long(heartbeat_interval=200)
    with running_worker(threads=2), first, second:
        message = charge.send()
        first.wait_for_body()
        take_over(second)
        eventually(lambda: ran)
        assert ran == [(0, "lost")]
        taken_over = audit_of(message)
        eventually(lambda: audit_of(message).due_at > taken_over.due_at)
    assert ran == [(0, "lost"), (1, "end")]
    assert audit_of(message).state == "completed"


def test_a_job_that_a_monitor_marked_and_nobody_claimed_is_completed_by_its_first_run(
    durable, declare_long, gate, ran, clock, monitor, running_worker, audit_of
):
    with running_worker(threads=2), gate:
        message = declare_long(heartbeat_interval=None).send()
        gate.wait_for_body()
        clock.move(hours=1)
        [stale] = durable.store.stale(10)
        assert durable.store.mark(stale, timedelta(minutes=1))
        assert audit_of(message).state == "pending"
    assert ran == [(0, "end")]
    assert audit_of(message).state == "completed"
    clock.move(hours=1)
    assert monitor.run_once().recovered == 0
