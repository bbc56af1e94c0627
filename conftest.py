"""Private servers, databases, brokers, a clock and workers for the tests.

Servers start when the first test asks for one and end with the session.  Each
test gets an empty database, an empty Redis database, an empty virtual host of RabbitMQ.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dramatiq
import dramatiq.broker
import peewee
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from playhouse.db_url import connect

from tests.support import waiting, working
from tests.support.app import App
from tests.support.databases import MariadbServer, PostgresServer
from tests.support.programs import missing
from tests.support.rabbitmq import RabbitmqServer
from tests.support.servers import RedisServer, Server
from tests.support.sharing import shared

if TYPE_CHECKING:
    from dramatiq_durable import Audit, DurableMiddleware, Monitor

S = TypeVar("S", bound=Server)


def pytest_configure() -> None:
    # What the developer's shell says of their own application is not for the tests.
    os.environ.pop("DRAMATIQ_DURABLE_DATABASE_URL", None)
    os.environ.pop("DRAMATIQ_DURABLE_SIGNING_KEY", None)


# Servers


@contextmanager
def _started(make: Callable[[], S]) -> Iterator[S]:
    server = make()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with _started(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitmqServer]:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    with shared(RabbitmqServer, folder) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with _started(PostgresServer) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    with _started(MariadbServer) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[Callable[..., RedisServer]]:
    """``own_redis(*args)``: a Redis that this test may stop; *args* are for its command line."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(_started(lambda: RedisServer(*args)))


@pytest.fixture
def own_rabbitmq() -> Iterator[Callable[..., RabbitmqServer]]:
    """``own_rabbitmq(*settings)``: a RabbitMQ that this test may stop; *settings* are lines of its configuration."""
    with ExitStack() as stack:
        yield lambda *settings: stack.enter_context(_started(lambda: RabbitmqServer(*settings)))


@pytest.fixture
def own_postgres() -> Iterator[Callable[[], PostgresServer]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_started(PostgresServer))


@pytest.fixture
def own_mariadb() -> Iterator[Callable[[], MariadbServer]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_started(MariadbServer))


# Databases


@pytest.fixture
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'test.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.fresh() as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: MariadbServer) -> Iterator[str]:
    with mariadb_server.fresh() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@contextmanager
def _connected(url: str) -> Iterator[peewee.Database]:
    database = connect(url, unquote_user=True, unquote_password=True)
    yield database
    if not database.is_closed():
        database.close()


@pytest.fixture
def db(database_url: str) -> Iterator[peewee.Database]:
    with _connected(database_url) as database:
        yield database


@pytest.fixture
def sqlite_db(sqlite_url: str) -> Iterator[peewee.Database]:
    with _connected(sqlite_url) as database:
        yield database


# Brokers


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    with redis_server.fresh() as url:
        yield url


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitmqServer) -> Iterator[str]:
    with rabbitmq_server.fresh() as url:
        yield url


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@contextmanager
def _global(broker: dramatiq.Broker) -> Iterator[dramatiq.Broker]:
    before = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)
    try:
        yield broker
    finally:
        dramatiq.broker.global_broker = before
        broker.close()


@pytest.fixture
def stub_broker() -> Iterator[dramatiq.Broker]:
    with _global(StubBroker()) as broker:
        yield broker


@pytest.fixture
def redis_broker(redis_url: str) -> Iterator[dramatiq.Broker]:
    with _global(RedisBroker(url=redis_url)) as broker:
        yield broker


@pytest.fixture
def rabbitmq_broker(rabbitmq_url: str) -> Iterator[dramatiq.Broker]:
    """With ``confirm_delivery``."""
    with _global(RabbitmqBroker(url=rabbitmq_url, confirm_delivery=True)) as broker:
        yield broker


@pytest.fixture
def _rabbitmq_broker_without_confirm(rabbitmq_url: str) -> Iterator[dramatiq.Broker]:
    with _global(RabbitmqBroker(url=rabbitmq_url)) as broker:
        yield broker


@pytest.fixture(params=["stub", "redis", "rabbitmq", "rabbitmq-confirm"])
def broker(request: pytest.FixtureRequest) -> dramatiq.Broker:
    """Each kind of broker, empty, and Dramatiq's global one."""
    fixtures = {
        "stub": "stub_broker",
        "redis": "redis_broker",
        "rabbitmq": "_rabbitmq_broker_without_confirm",
        "rabbitmq-confirm": "rabbitmq_broker",
    }
    made: dramatiq.Broker = request.getfixturevalue(fixtures[request.param])
    return made


# The library


@pytest.fixture
def make_durable() -> Iterator[Callable[..., DurableMiddleware]]:
    """``make_durable(broker, db, **options)``: a DurableMiddleware on *broker*, with its tables; *kind* may be a subclass."""
    from dramatiq_durable import DurableMiddleware

    made = []

    def make(
        broker: dramatiq.Broker,
        db: peewee.Database,
        kind: type[DurableMiddleware] = DurableMiddleware,
        **options: Any,
    ) -> DurableMiddleware:
        durable = kind(db, **options)
        broker.add_middleware(durable)
        durable.create_tables()
        made.append(durable)
        return durable

    yield make
    for durable in made:
        for store in durable.stores():
            store.connections.close()


@pytest.fixture
def durable(
    broker: dramatiq.Broker,
    sqlite_db: peewee.Database,
    make_durable: Callable[..., DurableMiddleware],
) -> DurableMiddleware:
    return make_durable(broker, sqlite_db)


class Clock:
    """The database's clock, as the stores of this process see it."""

    def move(self, **duration: float) -> None:
        """Move it on, by what timedelta takes: ``clock.move(minutes=1)``."""
        from dramatiq_durable.store import Store

        Store.clock_offset += timedelta(**duration)

    def reset(self) -> None:
        from dramatiq_durable.store import Store

        Store.clock_offset = timedelta(0)


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.reset()


class LazyMonitor:
    """The Monitor of the current test's broker, made when it is first used."""

    def __init__(self) -> None:
        self._monitor: Monitor | None = None

    def __getattr__(self, name: str) -> Any:
        from dramatiq_durable import Monitor

        if self._monitor is None:
            self._monitor = Monitor(working.current_broker())
        return getattr(self._monitor, name)


@pytest.fixture
def monitor() -> LazyMonitor:
    return LazyMonitor()


@pytest.fixture
def audits() -> Callable[[DurableMiddleware], list[Audit]]:
    """``audits(durable)``: every audit of a middleware."""
    return lambda durable: [audit for store in durable.stores() for audit in store.list_audits()]


@pytest.fixture
def audit_of() -> Callable[[dramatiq.Message[Any]], Audit | None]:
    """``audit_of(message)``: its audit on the current test's broker; None when it has none."""

    def find(message: dramatiq.Message[Any]) -> Audit | None:
        from dramatiq_durable.middleware import find_middleware

        stores = find_middleware(working.current_broker()).stores()
        found = (store.get(message.message_id) for store in stores)
        return next((audit for audit in found if audit is not None), None)

    return find


# Running


@pytest.fixture
def libfaketime() -> str:
    """What, preloaded, gives a process a wrong clock."""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else missing("libfaketime is not installed")


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return waiting.eventually


@pytest.fixture
def work() -> Callable[..., None]:
    """``work(broker=None, threads=1, timeout=30)``: see :func:`working.drain`."""
    return working.drain


@pytest.fixture
def finish(work: Callable[..., None], clock: Clock, monitor: LazyMonitor) -> Callable[[], None]:
    """``finish()``: work, and everything that monitors would ever make of what is in the database."""

    def run() -> None:
        work()
        for _ in range(2):
            clock.move(hours=2)
            monitor.run_once()
            work()

    return run


@pytest.fixture
def running_worker() -> Callable[..., AbstractContextManager[dramatiq.Worker]]:
    """``with running_worker(broker=None, threads=2):`` a worker that runs."""
    return working.running


@pytest.fixture
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """``app(source, **environment)``: an application, whose processes end with the test."""
    with ExitStack() as stack:

        def make(source: str, **environment: str) -> App:
            made = App(tmp_path_factory.mktemp("app"), source, environment)
            stack.callback(made.close)
            return made

        yield make
