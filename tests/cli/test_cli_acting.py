"""retry and cancel."""

import threading
import uuid

import pytest

from dramatiq_durable import LeaseLost, durable_actor


@pytest.fixture
def recover(monitor, work):
    """One pass of the monitor, and all the work it makes."""

    def run():
        monitor.run_once()
        work()

    return run


@pytest.mark.parity(24)
def test_a_dead_job_is_retried_by_its_id(command, dead, recover, ran, states):
    done = command("retry", dead[1])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "retried 1\n", "")
    recover()
    assert ran == [2]
    assert states(dead) == ["dead", "completed", "dead"]


@pytest.mark.parity(24)
def test_several_are_retried_by_their_ids_each_once(command, dead, recover, ran):
    done = command("retry", dead[0], dead[2], dead[0])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "retried 2\n", "")
    recover()
    assert sorted(ran) == [1, 3]


@pytest.mark.parity(24)
@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("--state dead", 3),
        ("--actor charge", 3),
        ("--queue default", 3),
        ("--older-than 30m", 3),
        ("--actor mail", 0),
        ("--queue mails", 0),
        ("--older-than 61m", 0),
        ("--state cancelled", 0),
    ],
)
def test_dead_jobs_are_retried_by_filters(command, dead, clock, recover, ran, filters, count):
    clock.move(hours=1)
    done = command("retry", *filters.split(), "--yes")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"retried {count}\n", "")
    recover()
    assert len(ran) == count


@pytest.mark.parity(24)
def test_retry_leaves_open_and_completed_jobs_alone(command, charge, dead, work, printed):
    charge.send(4)
    work()
    charge.send(5)
    before = {audit["message_id"]: audit for audit in printed("list", "--state", "completed")}
    assert command("retry", "--actor", "charge", "--yes").stdout == "retried 3\n"
    after = {audit["message_id"]: audit for audit in printed("list", "--state", "completed")}
    assert len(before) == 1
    assert after == before
    work()
    assert printed("status")["states"]["pending"] == 3


@pytest.mark.failure("28c")
@pytest.mark.parametrize("days", [1, 13, 1000])
def test_an_old_dead_job_that_an_operator_retries_runs(
    command, dead, clock, recover, ran, states, days
):
    clock.move(days=days)
    assert command("retry", *dead).exit_code == 0
    recover()
    assert sorted(ran) == [1, 2, 3]
    assert states(dead) == ["completed"] * 3
    recover()
    assert states(dead) == ["completed"] * 3  # their retention counts from now


@pytest.mark.failure("28c")
def test_an_old_dead_job_that_an_operator_retries_may_be_lost_once_more(
    command, stub_broker, dead, clock, monitor, recover, ran
):
    clock.move(days=13)
    assert command("retry", *dead).exit_code == 0
    monitor.run_once()
    stub_broker.flush_all()
    clock.move(minutes=12)
    recover()
    assert sorted(ran) == [1, 2, 3]


def test_retried_jobs_get_fresh_counters(command, dead, printed):
    assert printed("show", dead[0])["start_count"] == 1
    command("retry", dead[0])
    shown = printed("show", dead[0])
    assert (shown["state"], shown["finished_at"]) == ("pending", None)
    assert [shown[f"{name}_count"] for name in ("enqueue", "crash", "failure", "requeue")] == [
        0
    ] * 4


@pytest.mark.failure(29)
def test_a_queued_job_that_is_cancelled_never_starts(command, charge, work, recover, clock, ran):
    ids = [charge.send(number).message_id for number in (1, 2, 3)]
    done = command("cancel", ids[0], ids[2])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "cancelled 2\n", "")
    work()
    assert ran == [2]
    clock.move(hours=1)
    recover()
    assert ran == [2]


@pytest.mark.failure(29)
def test_queued_jobs_are_cancelled_by_filters(command, charge, mail, work, ran, states):
    charges = [charge.send(number).message_id for number in (1, 2)]
    mails = [mail.send("a@b").message_id]
    assert command("cancel", "--actor", "charge", "--yes").stdout == "cancelled 2\n"
    work()
    assert (ran, states(charges), states(mails)) == ([], ["cancelled"] * 2, ["completed"])


@pytest.mark.failure(29)
def test_a_running_job_that_is_cancelled_loses_its_lease(
    command, durable, running_worker, eventually, states
):
    started, outcome = threading.Event(), []

    @durable_actor(heartbeat_interval=50)
    def spin():
        started.set()
        try:
            eventually(lambda: False, timeout=30)
        except BaseException as error:
            outcome.append(type(error))
            raise

    message = spin.send()
    with running_worker():
        assert started.wait(30)
        assert command("cancel", message.message_id).stdout == "cancelled 1\n"
        eventually(lambda: outcome)
    assert outcome == [LeaseLost]
    assert states([message.message_id]) == ["cancelled"]


@pytest.mark.parity(24)
def test_a_cancelled_job_can_be_brought_back(command, charge, work, recover, clock, ran):
    message = charge.send(1)
    command("cancel", message.message_id)
    work()
    assert command("retry", message.message_id).exit_code == 0
    clock.move(seconds=40)  # the lease that a run would have had
    recover()
    assert ran == [1]


def test_cancel_leaves_finished_jobs_alone(command, dead, charge, work, states):
    completed = charge.send(4).message_id
    work()
    assert command("cancel", "--actor", "charge", "--yes").stdout == "cancelled 0\n"
    assert states([*dead, completed]) == ["dead"] * 3 + ["completed"]


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_an_unknown_id_is_one_line_and_exit_code_1(command, charge, name):
    done = command(name, str(uuid.uuid4()))
    assert done.exit_code == 1
    assert done.stdout in {"retried 0\n", "cancelled 0\n"}
    [line] = done.stderr.splitlines()
    assert "unknown" in line


def test_the_known_among_unknown_ids_are_retried(command, dead, recover, ran):
    done = command("retry", dead[0], "unknown", dead[1])
    assert (done.exit_code, done.stdout) == (1, "retried 2\n")
    assert done.stderr.startswith("Error: 1 of the IDs")
    recover()
    assert sorted(ran) == [1, 2]


def test_the_ids_that_it_is_not_for_are_named_each_with_its_state(command, charge, dead, work):
    completed = charge.send(4).message_id
    work()
    pending = charge.send(5).message_id
    done = command("retry", "no-such", completed, dead[0], pending)
    assert (done.exit_code, done.stdout) == (1, "retried 1\n")
    [line] = done.stderr.splitlines()
    for said in ("no-such is unknown", f"{completed} is completed", f"{pending} is pending"):
        assert said in line
    assert dead[0] not in line
    done = command("cancel", pending, dead[1])
    assert (done.exit_code, done.stdout) == (1, "cancelled 1\n")
    assert f"{dead[1]} is dead" in done.stderr


def test_of_thousands_of_ids_that_it_is_not_for_the_first_are_named(command, charge):
    done = command("cancel", *(f"no-such-{number}" for number in range(2_000)))
    [line] = done.stderr.splitlines()
    assert "2000 of the IDs" in line
    assert "no-such-0 is unknown" in line
    assert len(line) < 1_000


@pytest.mark.parametrize(
    ("name", "state"), [("retry", "completed"), ("retry", "pending"), ("cancel", "dead")]
)
def test_states_that_it_is_not_for_are_usage_errors(command, dead, name, state):
    done = command(name, "--state", state, "--yes")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "dead or cancelled" in done.stderr or "pending or running" in done.stderr


@pytest.mark.parametrize("name", ["retry", "cancel"])
@pytest.mark.parametrize("arguments", [[], ["--yes"], ["an-id", "--actor", "charge"]], ids=" ".join)
def test_ids_or_filters_must_be_named_but_not_both(command, dead, states, name, arguments):
    done = command(name, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "IDs" in done.stderr
    assert states(dead) == ["dead"] * 3
