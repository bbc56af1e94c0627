"""Where the audits are: a database, a URL, or a variable of the environment."""

import traceback
from typing import Any

import dramatiq
import peewee
import pytest
from playhouse.pwasyncio import AsyncSqliteDatabase

from dramatiq_durable import Audit, DurableError, DurableMiddleware, durable_actor

VARIABLE = "DRAMATIQ_DURABLE_DATABASE_URL"


@pytest.fixture
def sends_and_works(stub_broker, work):
    """``sends_and_works(durable)``: whether a job is sent, run and completed there."""

    def check(durable):
        ran = []
        stub_broker.add_middleware(durable)
        durable.create_tables()

        @durable_actor
        def job(number):
            ran.append(number)

        message = job.send(1)
        work()
        state = durable.store.get(message.message_id).state
        durable.store.connections.close()
        return ran == [1] and state == "completed"

    return check


@pytest.mark.parity(33)
def test_the_database_may_be_a_url(database_url, sends_and_works):
    assert sends_and_works(DurableMiddleware(database_url))


@pytest.mark.parity(33)
def test_the_url_may_be_in_the_environment(database_url, sends_and_works, monkeypatch):
    monkeypatch.setenv(VARIABLE, database_url)
    assert sends_and_works(DurableMiddleware())


@pytest.mark.parity(33)
def test_what_is_given_goes_before_the_environment(sqlite_url, sends_and_works, monkeypatch):
    monkeypatch.setenv(VARIABLE, "postgresql://nobody@127.0.0.1:1/nothing")
    assert sends_and_works(DurableMiddleware(sqlite_url))


@pytest.mark.parity(33)
def test_a_relative_sqlite_url_is_a_file_in_this_folder(tmp_path, monkeypatch, sends_and_works):
    monkeypatch.chdir(tmp_path)
    assert sends_and_works(DurableMiddleware("sqlite:///jobs.db"))
    assert (tmp_path / "jobs.db").stat().st_size > 0


@pytest.mark.parity(33)
def test_a_peewee_database_may_be_the_applications_own(db, sends_and_works):
    assert sends_and_works(DurableMiddleware(db))


@pytest.mark.parity(33)
def test_a_database_may_be_named_later(sqlite_url, sends_and_works, tmp_path):
    deferred = peewee.SqliteDatabase(None)
    proxy: Any = peewee.DatabaseProxy()
    durable = DurableMiddleware(deferred)
    behind_proxy = DurableMiddleware(proxy)
    deferred.init(tmp_path / "later.db")
    proxy.initialize(peewee.SqliteDatabase(tmp_path / "later.db"))
    assert sends_and_works(durable)
    behind_proxy.create_tables()
    assert len(behind_proxy.store.list_audits()) == 1
    behind_proxy.store.connections.close()


@pytest.mark.parametrize("scheme", ["mariadb", "mariadb+pool"])
def test_mariadb_is_a_scheme_too(mariadb_url, sends_and_works, scheme):
    assert sends_and_works(DurableMiddleware(mariadb_url.replace("mysql://", f"{scheme}://")))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://shop:hunter2@host/db", "pip install 'dramatiq-durable[postgres]'"),
        ("postgres+pool://shop:hunter2@host/db", "pip install 'dramatiq-durable[postgres]'"),
        ("mysql://shop:hunter2@host/db", "pip install 'dramatiq-durable[mysql]'"),
        ("mariadb://shop:hunter2@host/db", "pip install 'dramatiq-durable[mysql]'"),
        ("mariadbconnector://shop:hunter2@host/db", "driver of MariaDBConnectorDatabase"),
    ],
)
def test_a_missing_driver_is_said_with_what_to_install(app, url, said):
    done = app("").python(
        f"""
        import sys
        for name in ("psycopg", "psycopg2", "pymysql", "MySQLdb", "mariadb"):
            sys.modules[name] = None
        from dramatiq_durable import DurableError, DurableMiddleware
        try:
            DurableMiddleware({url!r})
        except DurableError as error:
            print(error)
        """
    )
    assert said in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_proxy_that_has_no_database_yet_is_said_with_what_to_do(stub_broker, tmp_path):
    proxy: Any = peewee.DatabaseProxy()
    durable = DurableMiddleware(proxy)
    stub_broker.add_middleware(durable)
    job = durable_actor(actor_name="job")(lambda: None)
    for use in (durable.create_tables, job.send, dramatiq.Worker(stub_broker).start):
        with pytest.raises(DurableError, match=r"DatabaseProxy.*initialize\(\)"):
            use()
    proxy.initialize(peewee.SqliteDatabase(tmp_path / "later.db"))
    durable.create_tables()
    durable.store.connections.close()


@pytest.mark.parity(33)
@pytest.mark.parametrize("value", [None, ""])
def test_no_database_at_all_is_refused_with_what_to_do(monkeypatch, value):
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=VARIABLE) as caught:
        DurableMiddleware()
    assert isinstance(caught.value, DurableError)


@pytest.mark.parametrize("database", [5, object(), {"database": "jobs.db"}, b"sqlite:///jobs.db"])
def test_what_is_no_database_is_refused_with_what_may_be_given(database):
    with pytest.raises(ValueError, match="Peewee Database or a URL"):
        DurableMiddleware(database)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://shop:hunter2@host", "names no database"),
        ("mysql://shop:hunter2@host/", "names no database"),
        ("postgresql://shop:hunter2@host:port/db", "port"),
        ("postgresql://shop:hunter2/is-not-encoded@host/db", "percent-encode"),
        ("postgresql://shop:hunter2@[::1/db", "host"),
        ("postgresq://shop:hunter2@host/db", "'postgresq' is unknown"),
        ("jobs.db", "no scheme"),
        ("sqlite://jobs.db", "three slashes"),
        ("sqlite+pool://folder/jobs.db", "three slashes"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_the_url(url, said):
    with pytest.raises(DurableError, match=said) as caught:
        DurableMiddleware(url)
    assert "hunter2" not in shown(caught.value)
    assert "@host" not in str(caught.value).partition("example")[0]


def shown(error):
    """What a traceback shows of *error*, the errors behind it included."""
    return "".join(traceback.format_exception(error))


@pytest.mark.failure(51)
@pytest.mark.parametrize("from_environment", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        "nonsense://shop:hunter2@host/db",
        "postgresql://shop:hunter2@host:port/db",
        "mysql://shop:hunter2@host:99999999/db",
        "postgresql://shop:hunter2@[::1/db",
        "postgresql://shop:hunter2/is-not-encoded@host/db",
        "shop:hunter2@host/db",
        "//shop:hunter2@host/db",
        "hunter2",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_its_password(
    monkeypatch, url, from_environment
):
    if from_environment:
        monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(DurableError) as caught:
        DurableMiddleware(*([] if from_environment else [url]))
    assert isinstance(caught.value, ValueError)
    assert "postgresql://" in str(caught.value)
    assert "hunter2" not in shown(caught.value)


def test_a_database_that_only_coroutines_can_use_is_refused(stub_broker, tmp_path):
    only_async = AsyncSqliteDatabase(tmp_path / "test.db")
    with pytest.raises(DurableError, match=r"AsyncSqliteDatabase.* the URL of the same database"):
        DurableMiddleware(only_async)

    proxy: Any = peewee.DatabaseProxy()
    behind_proxy = DurableMiddleware(proxy)
    proxy.initialize(only_async)
    with pytest.raises(DurableError, match="AsyncSqliteDatabase"):
        behind_proxy.create_tables()

    class OwnAudit(Audit):
        class Meta:
            database = only_async
            table_name = "own_audits"

    stub_broker.add_middleware(DurableMiddleware(f"sqlite:///{tmp_path / 'test.db'}"))

    @durable_actor(audit_model=OwnAudit)
    def charge():
        pass

    with pytest.raises(DurableError, match="AsyncSqliteDatabase"):
        charge.send()
