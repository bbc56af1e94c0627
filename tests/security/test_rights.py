"""The rights that the README names for each role are enough, and all of them are needed."""

import re
from contextlib import nullcontext
from pathlib import Path

import dramatiq
import peewee
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import (
    AuditWriteFailed,
    DurableError,
    DurableMiddleware,
    Monitor,
    RequeueImmediately,
    current_audit,
    durable_actor,
)

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GRANTS = re.findall(r"`GRANT ([^`]+) TO app`", README)
RIGHTS = {
    role: re.findall("SELECT|INSERT|UPDATE|DELETE", rights.partition(";")[0])
    for role, rights in re.findall(r"^\| (.+) \| (SELECT.*) \|$", README, re.MULTILINE)
}

pytestmark = [
    pytest.mark.failure(53),
    pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True),
]


class Picky(dramatiq.Middleware):
    def before_enqueue(self, broker, message, delay):
        if message.args == ("refused",):
            raise dramatiq.middleware.MiddlewareError


class Broker(StubBroker):
    """Has no room for what is called "full"."""

    def enqueue(self, message, *, delay=None):
        if message.args == ("full",):
            for middleware in self.middleware:
                middleware.before_enqueue(self, message, delay)
            raise ConnectionError
        return super().enqueue(message, delay=delay)


@pytest.fixture
def grant(database_url, db):
    """``grant(right)`` to the user ``app``: ``SELECT``, ``CREATE``; ``SELECT ON durable_audits`` as in the README."""
    user, host = ("app", "") if "postgres" in database_url else ("'app'@'127.0.0.1'", "mysql")
    schema = "SCHEMA public" if not host else f"{database_url.rpartition('/')[2]}.*"
    db.execute_sql(f"CREATE USER {user}")

    def grant(right):
        on = "" if " ON " in right else f" ON {schema if right in OF_SCHEMA else 'durable_audits'}"
        db.execute_sql(f"GRANT {right}{on} TO {user}")
        if not host and right == "INSERT":
            db.execute_sql(f"GRANT USAGE ON SEQUENCE durable_audits_id_seq TO {user}")

    yield grant
    if not host:
        db.execute_sql(f"DROP OWNED BY {user}")
    db.execute_sql(f"DROP USER {user}")


OF_SCHEMA = {"CREATE", "INDEX"}


@pytest.fixture
def jobs(db):
    """``jobs(database)``: a broker on *database*, and what its durable actor has run."""
    made = []

    def make(database):
        broker = Broker()
        durable = DurableMiddleware(database)
        broker.add_middleware(durable)
        broker.add_middleware(Picky())
        made.append(durable)
        ran = []

        @durable_actor(
            broker=broker, max_retries=0, job_timeout=1_000, heartbeat_interval=25, throws=KeyError
        )
        def job(what):
            ran.append(what)
            if what == "requeue":
                raise RequeueImmediately
            if what == "transaction":
                audit = current_audit()
                assert audit is not None
                with audit.transaction():
                    pass
            if what in {"fail", "dead"}:
                raise KeyError if what == "dead" else ValueError

        return broker, durable, job, ran

    yield make
    for durable in made:
        for connections in (durable.store.connections, durable.database):
            connections.close()


@pytest.fixture
def owner(jobs, db):
    """The same for the user that owns the table, which is there."""
    made = jobs(db)
    made[1].create_tables()
    return made


@pytest.fixture
def of_app(jobs, database_url):
    """The same for the user ``app``."""
    return jobs(re.sub("//(postgres|root)@", "//app@", database_url))


@pytest.fixture
def roles(owner, of_app, work, clock, command_on, audits):
    """What each role does, with the rights of ``app``; it raises when something is not done."""
    broker, durable, job, _ran = of_app
    _, owned, owners_job, _ = owner

    def states():
        return {audit.message_id: audit.state for audit in audits(owned)}

    def sender():
        message = job.send("now")
        broker.enqueue(message.copy(options={}))
        job.send("full")
        with durable.database.atomic():
            job.send("later")
        with pytest.raises(dramatiq.middleware.MiddlewareError):
            job.send("refused")
        found = audits(owned)
        assert [audit.state for audit in found] == ["pending"] * 3
        full = found[1]
        assert full.enqueue_count == 0

    def worker():
        whats = ("run", "fail", "dead", "requeue", "transaction", "adopt")
        sent = {what: owners_job.send(what) for what in whats}
        owned.database.execute_sql(
            f"DELETE FROM durable_audits WHERE message_id = '{sent['adopt'].message_id}'"
        )
        for message in sent.values():
            broker.queues["default"].put(message.encode())
        work(broker)
        ended = {what: states().get(message.message_id) for what, message in sent.items()}
        assert ended == {
            "run": "completed",
            "fail": "pending",
            "dead": "dead",
            "requeue": "pending",
            "transaction": "completed",
            "adopt": "completed",
        }

    def monitor():
        for what in ("stale", "also stale"):
            owners_job.send(what)
        clock.move(hours=1)
        assert Monitor(broker).run_once().recovered == 2
        clock.move(days=4)
        assert Monitor(broker).run_once().dead == 2
        clock.move(days=20)
        assert Monitor(broker).run_once().deleted == 2

    def run(*words):
        done = command_on(broker)(*words)
        assert done.exit_code == 0, done.stderr

    def looking():
        message_id = owners_job.send("look").message_id
        for words in (
            ("status",), ("list",), ("show", message_id, "--arguments"), ("schema check",),
        ):  # fmt: skip
            run(*words)

    def acting():
        message_id = owners_job.send("act").message_id
        for name in ("cancel", "retry"):
            run(name, message_id)

    def purge():
        assert list(owned.store.cancel([owners_job.send("old").message_id])) == [1]
        clock.move(days=2)
        run("purge", "--yes")
        assert audits(owned) == []

    return {
        "sender": sender,
        "worker": worker,
        "monitor": monitor,
        "`status`, `list`, `show`, `schema check`": looking,
        "`retry`, `cancel`": acting,
        "`purge`": purge,
    }


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_works_with_its_rights(roles, grant, role):
    assert RIGHTS.keys() == roles.keys()
    for right in RIGHTS[role]:
        grant(right)
    roles[role]()


@pytest.mark.parametrize(
    ("role", "missing"), [(role, right) for role, rights in RIGHTS.items() for right in rights]
)
def test_a_role_does_not_work_without_one_of_its_rights(roles, grant, role, missing):
    for right in RIGHTS[role]:
        if right != missing:
            grant(right)
    with pytest.raises((AssertionError, DurableError, peewee.PeeweeException)):
        roles[role]()


def test_with_what_the_readme_grants_to_an_application_all_roles_work(
    roles, grant, owner, database_url
):
    assert len(GRANTS) == 2
    for right in GRANTS[: 2 if "postgres" in database_url else 1]:
        grant(right)
    for act in roles.values():
        act()
        owner[1].database.execute_sql("DELETE FROM durable_audits")


def test_the_table_is_created_with_the_rights_for_it(of_app, grant, database_url, command_on):
    of_it = re.findall("CREATE|INDEX|SELECT", rights_of("schema create", database_url))
    create = command_on(of_app[0])
    for right in of_it:
        assert create("schema create").exit_code != 0
        if right == "SELECT":
            # A right on a table that is not there yet is one on all of the database.
            right = f"SELECT ON {database_url.rpartition('/')[2]}.*"  # noqa: PLW2901
        grant(right)
    assert create("schema create").stdout == "durable_audits is ready\n"


@pytest.fixture
def older(owner, db):
    """The table lacks a column and an index of it is another."""
    suffix = " ON durable_audits" if isinstance(db, peewee.MySQLDatabase) else ""
    for statement in (
        "ALTER TABLE durable_audits DROP COLUMN signature",
        f"DROP INDEX durable_audits_due{suffix}",
        "CREATE INDEX durable_audits_due ON durable_audits (namespace, due_at)",
    ):
        db.execute_sql(statement)
    db.close()


def rights_of(command, database_url):
    """What the README says that *command* needs on the database of this test."""
    [rights] = re.findall(rf"^\| `{command}` \| (.+) \|$", README, re.MULTILINE)
    postgres, mysql = rights.split(";")
    return postgres if "postgres" in database_url else mysql


@pytest.mark.usefixtures("older")
def test_the_table_is_migrated_with_the_rights_for_it(of_app, grant, database_url, command_on, db):
    rights = rights_of("schema migrate", database_url)
    migrate = command_on(of_app[0])
    assert migrate("schema migrate").exit_code != 0
    for right in re.findall("to own|ALTER|CREATE|INDEX|INSERT|SELECT", rights):
        if right == "to own":
            db.execute_sql("ALTER TABLE durable_audits OWNER TO app")
        elif "mysql" in database_url:
            grant(f"{right} ON durable_audits")
        else:
            assert migrate("schema migrate").exit_code != 0
            grant(right)
    done = migrate("schema migrate")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("durable_audits is ready\n")


@pytest.mark.usefixtures("older")
def test_who_may_not_migrate_the_table_is_told_what_that_needs(of_app, grant, command_on):
    grant("SELECT")
    done = command_on(of_app[0])("schema migrate")
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert "the database refuses it" in line
    assert "only the owner of the table may change it" in line


@pytest.mark.usefixtures("owner")
def test_who_sees_nothing_of_the_table_is_told_so_and_not_that_all_is_missing(
    of_app, grant, command_on
):
    grant("INDEX" if "mysql" in str(of_app[1].database.connect_params) else "CREATE")
    done = command_on(of_app[0])("schema check")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "grant" in done.stderr


@pytest.mark.usefixtures("owner")
def test_a_command_says_which_right_is_missing(of_app, grant, command_on):
    grant("DELETE")
    done = command_on(of_app[0])("status")
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "denied" in line
    assert "durable_audits" in line
    assert "grant its user SELECT, INSERT, UPDATE and DELETE" in line


def test_who_may_not_create_the_table_is_told_what_that_needs(
    of_app, grant, database_url, command_on
):
    if "mysql" in database_url:
        grant("INDEX")  # or the user may not even connect to the database
    done = command_on(of_app[0])("schema create")
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "denied" in line
    assert "who creates the table needs CREATE" in line


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_sender_says_which_right_is_missing(of_app, owner, grant, audits, in_transaction):
    _, durable, job, _ = of_app
    _, owned, _, _ = owner
    grant("SELECT")
    around = durable.database.atomic() if in_transaction else nullcontext()
    with pytest.raises(AuditWriteFailed, match=r"denied.*grant its user SELECT, INSERT"), around:
        job.send("now")
    assert audits(owned) == []
