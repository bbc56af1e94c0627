"""The options of monitor, from the command line and from the environment."""

import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import durable_actor
from tests.support.servers import free_port

STALE = {"minutes": 11}  # job_timeout and the first backoff


@pytest.fixture
def waiting(stub_broker):
    """``waiting()``: how many messages wait in the broker."""
    return lambda: sum(queue.qsize() for queue in stub_broker.queues.values())


@pytest.fixture(params=["option", "environment"])
def monitor_with(request, command):
    """``monitor_with(batch_size="7")``: runs it with ``--batch-size 7``, or the variable of that name."""

    def run(**options):
        if request.param == "environment":
            variables = {name.upper(): "1" if v is True else v for name, v in options.items()}
            return command(
                "monitor", env={f"DRAMATIQ_DURABLE_{name}": v for name, v in variables.items()}
            )
        words = []
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
        return command("monitor", *words)

    return run


def test_once_makes_one_pass_and_prints_what_it_did(
    monitor_with, stub_broker, charge, dead, clock, waiting, states
):
    completed, lost = dead, charge.send(4).message_id
    stub_broker.flush_all()
    done = monitor_with(once=True)
    assert (done.exit_code, done.stdout, done.stderr) == (
        0,
        "recovered 0, dead 0, deleted 0, failed 0\n",
        "",
    )
    clock.move(**STALE)
    assert monitor_with(once=True).stdout == "recovered 1, dead 0, deleted 0, failed 0\n"
    assert waiting() == 1
    assert monitor_with(once=True).stdout == "recovered 0, dead 0, deleted 0, failed 0\n"
    clock.move(days=14)
    assert monitor_with(once=True).stdout == "recovered 0, dead 1, deleted 3, failed 0\n"
    assert states([*completed, lost]) == [None, None, None, "dead"]


@pytest.mark.parity(27)
@pytest.mark.failure(32)
def test_one_that_cannot_be_sent_makes_the_exit_code_1(
    monitor_with, charge, mail, clock, sqlite_db, waiting
):
    charge.send(1)
    bad = mail.send("a@b").message_id
    charge.send(2)
    sqlite_db.execute_sql("UPDATE durable_audits SET payload = x'ff' WHERE message_id = ?", (bad,))
    clock.move(**STALE)
    before = waiting()
    done = monitor_with(once=True)
    assert (done.exit_code, done.stdout) == (1, "recovered 2, dead 0, deleted 0, failed 1\n")
    assert waiting() == before + 2


def test_a_dry_run_says_what_a_pass_would_do_and_does_nothing(
    monitor_with, printed, charge, mail, dead, clock, sqlite_db, waiting
):
    clock.move(days=14)
    bad = mail.send("a@b").message_id
    charge.send(4)
    sqlite_db.execute_sql("UPDATE durable_audits SET payload = x'ff' WHERE message_id = ?", (bad,))
    clock.move(**STALE)
    before, messages = printed("list"), waiting()
    done = monitor_with(dry_run=True)
    assert done.stdout == "would have recovered 1, dead 0, deleted 3, failed 1\n"
    assert done.exit_code == 1
    assert (printed("list"), waiting()) == (before, messages)


def test_a_dry_run_counts_what_has_expired(monitor_with, stub_broker, charge, clock):
    charge.send(1)
    clock.move(**STALE)
    monitor_with(once=True)
    clock.move(days=3)
    done = monitor_with(dry_run=True)
    assert (done.exit_code, done.stdout) == (
        0,
        "would have recovered 0, dead 1, deleted 0, failed 0\n",
    )


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("7100", "7300"),
        ("7100s", "7300s"),
        ("7100000ms", "7300000ms"),
        ("119m", "121m"),
        ("1.9h", "2.1h"),
        ("0.08d", "3d"),
    ],
)
def test_an_open_job_two_hours_old_is_given_up_when_its_expiration_is_shorter(
    monitor_with, charge, clock, states, shorter, longer
):
    ids = [charge.send(1).message_id]
    clock.move(**STALE)
    monitor_with(once=True)  # it must have been sent again before it is given up
    clock.move(minutes=120 - 11)
    done = monitor_with(dry_run=True, expiration=longer)
    assert done.stdout.startswith("would have recovered 1, dead 0,")
    done = monitor_with(once=True, expiration=shorter)
    assert done.stdout.startswith("recovered 0, dead 1,")
    assert states(ids) == ["dead"]


def test_an_expiration_past_the_end_of_the_calendar_is_refused_or_means_never(
    command, charge, clock, states
):
    ids = [charge.send(1).message_id]
    for _ in range(2):
        clock.move(hours=1)
        done = command("monitor", "--once", "--expiration", "9999999d")
        assert done.exit_code == 2 or done.stdout.startswith("recovered 1, dead 0,")
    assert states(ids) == ["pending"]


@pytest.mark.parity(25)
def test_audits_are_read_in_batches(monitor_with, charge, clock, sqlite_db):
    for number in range(5):
        charge.send(number)
    clock.move(**STALE)
    limits = []

    def note(event):
        if event.sql.startswith("SELECT") and "LIMIT" in event.sql:
            limits.append(event.params[-1])

    sqlite_db.query_hooks.append(note)
    assert monitor_with(once=True, batch_size="2").stdout.startswith("recovered 5")
    assert limits
    assert set(limits) == {2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interval", "0"),
        ("interval", "-1"),
        ("interval", "soon"),
        ("interval", "1e400d"),
        ("batch_size", "0"),
        ("batch_size", "99999999999999999999999"),
        ("batch_size", "1.5"),
        ("max_rate", "0"),
        ("max_rate", "-1"),
        ("max_rate", "fast"),
        ("max_rate", "nan"),
        ("expiration", "0"),
        ("expiration", "-3d"),
        ("expiration", "3w"),
        ("expiration", "99999999999d"),
        ("once", "perhaps"),
        ("dry_run", "perhaps"),
    ],
)
def test_values_that_make_no_sense_are_usage_errors(command, charge, name, value):
    variable = f"DRAMATIQ_DURABLE_{name.upper()}"
    one_pass = "--dry-run" if name == "once" else "--once"
    done = command("monitor", one_pass, env={variable: value})
    assert (done.exit_code, done.stdout) == (2, "")
    assert value in done.stderr
    assert variable in done.stderr
    if name in {"once", "dry_run"}:
        return
    done = command("monitor", one_pass, f"--{name.replace('_', '-')}={value}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert value in done.stderr


def test_the_command_line_goes_before_the_environment(command, charge):
    done = command(
        "monitor", "--once", "--batch-size", "1", env={"DRAMATIQ_DURABLE_BATCH_SIZE": "0"}
    )
    assert done.exit_code == 0


def down(kind):
    url = f"127.0.0.1:{free_port()}"
    if kind == "redis":
        return RedisBroker(url=f"redis://{url}/0")
    return RabbitmqBroker(url=f"amqp://guest:guest@{url}/?connection_attempts=1&retry_delay=0")


@pytest.mark.failure(33)
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_broker_that_is_down_makes_the_exit_code_3(
    kind, sqlite_db, make_durable, command_on, clock
):
    broker = down(kind)
    durable = make_durable(broker, sqlite_db)
    job = durable_actor(actor_name="job", broker=broker)(lambda: None)
    ids = [job.send().message_id for _ in range(3)]
    command = command_on(broker)
    assert command("monitor", "--dry-run").exit_code == 0
    before = [durable.store.get(each).enqueue_count for each in ids]
    done = command("monitor", "--once")
    assert done.exit_code == 3
    assert done.stdout.startswith("recovered 0, dead 0, deleted 0, failed 0")
    assert [durable.store.get(each).enqueue_count for each in ids] == before
    broker.close()
