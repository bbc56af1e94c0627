"""The rights that the README asks the administrator of PostgreSQL for are enough, and all are needed."""

import re
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, Monitor, durable_actor

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GRANTS = re.findall(r"`(GRANT [^`]+) TO app`", README)

pytestmark = pytest.mark.failure(53)


@pytest.fixture
def administrator(postgres_url):
    """A connection that may do everything, to a database with the table of audits and a user ``app``."""
    owner = DurableMiddleware(postgres_url)
    owner.create_tables()
    owner.store.connections.close()
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        connection.execute("CREATE USER app")
        yield connection
        connection.execute("DROP OWNED BY app")
        connection.execute("DROP USER app")


@pytest.fixture
def durable_of_app(stub_broker, administrator, postgres_url):
    durable = DurableMiddleware(postgres_url.replace("//postgres@", "//app@"))
    stub_broker.add_middleware(durable)
    yield durable
    durable.store.connections.close()


def test_with_the_rights_that_the_readme_names_a_job_is_sent_run_recovered_and_deleted(
    stub_broker, administrator, durable_of_app, work, clock, audits
):
    assert len(GRANTS) == 2
    for grant in GRANTS:
        administrator.execute(sql.SQL(f"{grant} TO app"))
    ran = []

    @durable_actor
    def charge(order_id):
        ran.append(order_id)

    charge.send(42)
    stub_broker.flush_all()
    clock.move(minutes=11)
    assert Monitor(stub_broker).run_once().recovered == 1
    work()
    assert ran == [42]
    assert [audit.state for audit in audits(durable_of_app)] == ["completed"]
    clock.move(days=2)
    assert Monitor(stub_broker).run_once().deleted == 1


def test_without_the_second_nothing_can_be_sent(administrator, durable_of_app):
    administrator.execute(sql.SQL(f"{GRANTS[0]} TO app"))
    charge = durable_actor(actor_name="charge")(lambda: None)
    with pytest.raises(AuditWriteFailed):
        charge.send()
    administrator.execute(sql.SQL(f"{GRANTS[1]} TO app"))
    charge.send()


def test_a_command_says_which_right_is_missing(stub_broker, durable_of_app, command_on):
    done = command_on(stub_broker)("status")
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "permission denied for table durable_audits" in line
    assert "GRANT SELECT, INSERT, UPDATE, DELETE" in line
