"""A connection that has fallen silent ends in an error, sooner than a lease of the default length."""

import pytest
from playhouse.db_url import connect

LEASE = 40  # seconds, of which one interval has passed when a renewal begins
INTERVAL = 10


@pytest.fixture
def limits(stub_broker, make_durable):
    """``limits(url, **params)``: the settings of our connections to a database of the application's."""

    def limits(url, **params):
        durable = make_durable(stub_broker, connect(url, **params))
        return durable.store.connections.run(lambda lane: dict(lane.connect_params))

    return limits


def test_on_postgresql(stub_broker, postgres_url, make_durable):
    durable = make_durable(stub_broker, postgres_url)
    given = durable.store.connections.run(lambda lane: lane.connection().info.get_parameters())
    assert int(given["tcp_user_timeout"]) / 1_000 < LEASE - INTERVAL
    idle, interval, count = (int(given[f"keepalives_{n}"]) for n in ("idle", "interval", "count"))
    assert idle + interval * count < LEASE - INTERVAL


def test_on_mariadb_and_mysql(mariadb_url, limits):
    given = limits(mariadb_url)
    assert 10 <= given["read_timeout"] < LEASE - INTERVAL
    assert 10 <= given["write_timeout"] < LEASE - INTERVAL


@pytest.mark.parametrize(
    ("server_url", "own"),
    [("postgres", {"tcp_user_timeout": 90_000}), ("mariadb", {"read_timeout": 90})],
    indirect=["server_url"],
)
def test_the_applications_own_settings_come_first(server_url, own, limits):
    assert own.items() <= limits(server_url, **own).items()


def test_a_connection_string_keeps_what_it_says(stub_broker, postgres_url, make_durable):
    from peewee import PostgresqlDatabase

    database = PostgresqlDatabase(f"{postgres_url}?tcp_user_timeout=90000")
    durable = make_durable(stub_broker, database)
    given = durable.store.connections.run(lambda lane: lane.connection().info.get_parameters())
    assert given["tcp_user_timeout"] == "90000"
    assert given["keepalives_count"] == "3"
