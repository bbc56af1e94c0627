"""Messages that wait in the broker for longer than their job_timeout are sent again, and run once."""

import pytest

from dramatiq_durable import durable_actor


@pytest.mark.parity(32)
def test_of_the_copies_that_a_backlog_leaves_one_runs(
    broker, durable, clock, monitor, work, audits
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    for order_id in range(10):
        charge.send(order_id)
    for _ in range(3):
        clock.move(hours=2)
        assert monitor.run_once().recovered == 10
    work()
    assert sorted(ran) == list(range(10))
    found = [(audit.state, audit.start_count, audit.enqueue_count) for audit in audits(durable)]
    assert found == [("completed", 1, 4)] * 10


@pytest.mark.parity(32)
def test_a_copy_that_comes_after_the_completion_changes_nothing(
    broker, durable, clock, monitor, work, audits
):
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    message = charge.send(42)
    work()
    [before] = audits(durable)
    broker.enqueue(message)
    work()
    [after] = audits(durable)
    assert ran == [42]
    assert (after.state, after.start_count, after.finished_at) == (
        "completed",
        1,
        before.finished_at,
    )
