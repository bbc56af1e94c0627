"""Applications with a table ``orders`` beside that of the audits."""

from importlib.util import find_spec

import pytest

from dramatiq_durable import durable_actor

from .applications import DIALECTS, KINDS

#: Of the drivers: the fixture with an empty database for them, and the module without which there is no such test.
DATABASES = {
    "sqlite": ("sqlite_url", "sqlite3"),
    "psycopg": ("postgres_url", "psycopg"),
    "psycopg2": ("postgres_url", "psycopg2"),
    "postgres": ("postgres_url", "psycopg"),
    "pymysql": ("mariadb_url", "pymysql"),
    "mysqldb": ("mariadb_url", "MySQLdb"),
    "mariadb": ("mariadb_url", "pymysql"),
}

#: Before PyMySQL is made to stand in for one of them.
MISSING = {module for _, module in DATABASES.values() if find_spec(module) is None}

WAYS = [
    *(f"session-{driver}" for driver in DIALECTS),
    *(f"connection-{driver}" for driver in DIALECTS),
    *(f"django-{database}" for database in ("sqlite", "postgres", "mariadb")),
    "peewee-postgres",
]


#: One driver of each kind.
some = pytest.mark.parametrize("way", ["session-sqlite", "session-psycopg", "session-pymysql"])


class Changed(Exception):
    """What makes a transaction roll back."""


@pytest.fixture(params=WAYS)
def way(request):
    """What the application uses, and by which driver."""
    return request.param


@pytest.fixture
def database_url(way, request):
    fixture, module = DATABASES[way.partition("-")[2]]
    if module in MISSING:
        pytest.skip(f"{module} is not installed")
    return request.getfixturevalue(fixture)


@pytest.fixture
def shop(way, database_url, db):
    """The application; its table is empty."""
    kind, _, driver = way.partition("-")
    db.execute_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    made = KINDS[kind](database_url, driver)
    yield made
    made.close()


@pytest.fixture
def engine(shop):
    """SQLAlchemy's."""
    return shop.engine


@pytest.fixture
def orders(db):
    """``orders()``: which are committed."""
    return lambda: [
        row[0] for row in db.execute_sql("SELECT id FROM orders ORDER BY id").fetchall()
    ]


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def charge(durable, ran):
    return durable_actor(ran.append, actor_name="charge", max_payload_size=1_000)


@pytest.fixture
def waiting(stub_broker):
    """``waiting()``: how many messages are in the queue."""

    def count():
        return stub_broker.queues["default"].qsize()

    return count


@pytest.fixture
def other_url(database_url, request):
    """A second database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"{database_url}.other"
        return
    server = "postgres_server" if database_url.startswith("postgres") else "mariadb_server"
    with request.getfixturevalue(server).fresh() as url:
        yield url
