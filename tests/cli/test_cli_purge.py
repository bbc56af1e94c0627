"""purge."""

import pytest

from dramatiq_durable import durable_actor

DAY = 86_400_000


@pytest.fixture
def finished(command, charge, dead, work):
    """The id of a completed, a cancelled and a dead job, all finished now."""
    cancelled = charge.send("cancelled").message_id
    command("cancel", cancelled)
    completed = charge.send("completed").message_id
    work()
    return [completed, cancelled, dead[0]]


@pytest.mark.failure(41)
def test_completed_and_cancelled_jobs_are_deleted_after_a_day_and_dead_ones_after_a_fortnight(
    command, finished, clock, states
):
    clock.move(hours=23, minutes=59)
    assert command("purge", "--yes").stdout == "deleted 0\n"
    assert states(finished) == ["completed", "cancelled", "dead"]
    clock.move(minutes=1)
    done = command("purge", "--yes")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "deleted 2\n", "")
    assert states(finished) == [None, None, "dead"]
    clock.move(days=12, hours=23, minutes=59)
    assert command("purge", "--yes").stdout == "deleted 0\n"
    clock.move(minutes=1)
    assert command("purge", "--yes").stdout == "deleted 3\n"
    assert states(finished) == [None, None, None]


@pytest.mark.failure(41)
def test_open_jobs_are_never_deleted(command, charge, mail, clock, states):
    ids = [charge.send(1).message_id, mail.send("a@b").message_id]
    clock.move(days=1000)
    assert command("purge", "--yes").stdout == "deleted 0\n"
    assert states(ids) == ["pending", "pending"]


@pytest.mark.failure(41)
def test_the_retention_is_that_of_the_middleware(
    stub_broker, sqlite_db, make_durable, command_on, clock
):
    durable = make_durable(stub_broker, sqlite_db, retention=DAY // 24, dead_retention=-1)

    @durable_actor
    def job():
        pass

    command = command_on(stub_broker)
    command("cancel", job.send().message_id)
    dead = job.send().message_id
    sqlite_db.execute_sql(
        "UPDATE durable_audits SET state = 'dead', finished_at = created_at, due_at = NULL"
        " WHERE message_id = ?",
        (dead,),
    )
    clock.move(minutes=61)
    assert command("purge", "--yes").stdout == "deleted 1\n"
    clock.move(days=1000)
    assert command("purge", "--yes").stdout == "deleted 0\n"
    assert durable.store.get(dead).state == "dead"


@pytest.mark.failure("28c")
def test_nothing_finished_runs_again_though_a_copy_outlives_its_audit(
    command, stub_broker, charge, clock, work, ran
):
    charge.send("completed")
    cancelled = charge.send("cancelled").message_id
    copies = list(stub_broker.queues["default"].queue)
    command("cancel", cancelled)
    work()
    assert ran == ["completed"]
    clock.move(days=1)
    assert command("purge", "--yes").stdout == "deleted 2\n"
    for copy in copies:
        stub_broker.queues["default"].put(copy)
    work()
    assert ran == ["completed"]


@pytest.mark.failure("28c")
def test_a_cancelled_job_of_tomorrow_keeps_its_audit_until_its_copy_has_come(
    command, stub_broker, charge, clock, work, ran, states
):
    message = charge.send_with_options(args=(1,), delay=3 * DAY)
    command("cancel", message.message_id)
    clock.move(days=3, hours=23)
    assert command("purge", "--yes").stdout == "deleted 0\n"
    clock.move(hours=1)
    assert command("purge", "--yes").stdout == "deleted 1\n"
    assert states([message.message_id]) == [None]
