"""doctor: a broker and databases that answer, do not, or have another clock."""

import json
import socket
from contextlib import contextmanager

import peewee
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from playhouse.db_url import connect

from dramatiq_durable import Audit, DurableMiddleware, durable_actor
from tests.support.servers import free_port


@pytest.fixture
def doctor_of(command_on, sqlite_db, make_durable, seen):
    """``doctor_of(broker)``: what doctor says of one with a monitor; it, and the lines about the broker."""

    def run(broker, **changes):
        seen(of=make_durable(broker, sqlite_db), **changes)
        done = command_on(broker)("doctor")
        about = ("broker:", "confirms:")
        return done, [line for line in done.stdout.splitlines() if line.split()[1] in about]

    return run


def test_a_redis_that_answers_is_fine(doctor_of, redis_broker):
    done, lines = doctor_of(redis_broker)
    assert (done.exit_code, lines) == (0, ["fine         broker: it answers"])


@pytest.mark.failure(44)
def test_a_rabbitmq_that_answers_is_fine_if_it_confirms(doctor_of, rabbitmq_broker, rabbitmq_url):
    done, lines = doctor_of(rabbitmq_broker)
    assert done.exit_code == 0
    assert lines == [
        "fine         broker: it answers",
        "fine         confirms: RabbitMQ says when it drops a message",
    ]
    done, lines = doctor_of(RabbitmqBroker(url=rabbitmq_url))
    assert done.exit_code == 1
    assert "confirm_delivery=True" in lines[1]


NOBODY = {
    "redis": lambda: RedisBroker(url=f"redis://:hunter2@127.0.0.1:{free_port()}/0"),
    "rabbitmq": lambda: RabbitmqBroker(
        url=f"amqp://guest:hunter2@127.0.0.1:{free_port()}/?connection_attempts=1",
        confirm_delivery=True,
    ),
}


@pytest.mark.failure(33)
@pytest.mark.failure(51)
@pytest.mark.parametrize("kind", NOBODY)
def test_a_broker_that_does_not_answer_makes_the_exit_code_3(doctor_of, kind):
    done, lines = doctor_of(NOBODY[kind]())
    assert done.exit_code == 3
    assert lines[0].startswith("unreachable  broker: it does not answer")
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.failure(33)
def test_a_broker_that_takes_a_connection_and_says_nothing_is_not_waited_for(
    doctor_of, monkeypatch
):
    monkeypatch.setattr("dramatiq_durable.cli.broker_checks.ANSWERS_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        done, lines = doctor_of(RedisBroker(host=host, port=port, socket_timeout=None))
    assert done.exit_code == 3
    assert lines[0].startswith("unreachable  broker: it does not answer (TimeoutError)")


@pytest.mark.failure(33)
def test_a_broker_that_a_monitor_finds_takes_nothing_is_said(doctor_of, redis_broker):
    done, [line] = doctor_of(redis_broker, outage=True)
    assert done.exit_code == 1
    assert "by the last pass of monitor host:7 it takes no messages" in line


@pytest.mark.failure(51)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.filterwarnings("ignore:'passwd' is deprecated:DeprecationWarning")
def test_a_database_that_does_not_answer_makes_the_exit_code_3_and_the_rest_is_looked_at(
    command_on, scheme
):
    broker = StubBroker(middleware=[])
    broker.add_middleware(
        DurableMiddleware(f"{scheme}://shop:hunter2@127.0.0.1:{free_port()}/shop")
    )
    done = command_on(broker)("doctor")
    assert (done.exit_code, done.stderr) == (3, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [(state, check) for state, check, _ in lines] == [
        ("unreachable", "database:"),
        ("unreachable", "monitor:"),
        ("fine", "broker:"),
        ("wrong", "retries:"),
        ("fine", "options:"),
    ]
    assert "hunter2" not in done.stdout


@pytest.fixture
def lock(postgres_url):
    """``with lock(table):`` somebody changes *table*, and takes his time."""

    @contextmanager
    def lock(table):
        somebody = connect(postgres_url)
        with somebody.atomic():
            somebody.execute_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        somebody.close()

    return lock


@pytest.fixture
def on_postgres(postgres_url, make_durable, command_on, seen):
    """The command on a broker with a monitor, and its audits on PostgreSQL."""
    broker = StubBroker()
    seen(of=make_durable(broker, connect(postgres_url)))
    return command_on(broker)


@pytest.mark.failure(46)
@pytest.mark.parametrize("table", ["durable_audits", "durable_monitors"])
def test_a_table_that_is_locked_makes_the_exit_code_3_and_the_rest_is_looked_at(
    on_postgres, lock, table
):
    with lock(table):
        done = on_postgres("doctor")
    assert (done.exit_code, done.stderr) == (3, "")
    states = [line.split()[:2] for line in done.stdout.splitlines()]
    check = {"durable_audits": "stale:", "durable_monitors": "monitor:"}[table]
    # PostgreSQL does not say what the indexes of a locked table are, either.
    assert [name for state, name in states if state == "unreachable"] == ["schema:", check]
    assert ["fine", "broker:"] in states


@pytest.mark.failure(46)
def test_status_does_not_wait_for_the_table_of_monitors(on_postgres, lock):
    with lock("durable_monitors"):
        done = on_postgres("status")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "which monitors run is not known" in done.stdout


def test_of_two_databases_the_one_that_answers_is_looked_at(
    stub_broker, command, charge, seen, tmp_path
):
    seen()
    far = peewee.SqliteDatabase(tmp_path / "no such folder" / "far.db")
    own = type("Own", (Audit,), {"Meta": type("Meta", (), {"database": far})})
    durable_actor(actor_name="far", audit_model=own)(lambda: None)
    done = command("doctor")
    assert done.exit_code == 3
    states = [line.split()[0] for line in done.stdout.splitlines()]
    assert states == ["unreachable", *["fine"] * 8]


APP = """
    import os
    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware

    broker = StubBroker()
    durable = DurableMiddleware(os.environ["SHOP_DATABASE"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
"""


@pytest.mark.failure(37)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
@pytest.mark.parametrize(
    ("ahead", "said"),
    [(0, None), (2, None), (300, "ahead of"), (-300, "behind")],
)
def test_a_clock_that_disagrees_with_the_databases_is_said(
    app, database_url, libfaketime, ahead, said
):
    shop = app(APP, SHOP_DATABASE=database_url)
    shop.run("schema", "create", "app:broker").check_returncode()
    if ahead:
        shop.environment.update(
            LD_PRELOAD=libfaketime, FAKETIME=f"{ahead:+d}", DONT_FAKE_MONOTONIC="1"
        )
    done = shop.run("doctor", "app:broker", "--skip", "monitor", "--json")
    assert done.stderr == ""
    [clock] = [each for each in json.loads(done.stdout) if each["check"] == "clock"]
    assert (done.returncode, clock["state"]) == ((1, "wrong") if said else (0, "fine"))
    if said:
        assert f"{said} the database's" in clock["says"]
        assert "0:0" in clock["says"]
