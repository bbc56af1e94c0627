"""What changes the tables needs rights of its own, and who lacks one is told which."""

import re
from contextlib import nullcontext
from pathlib import Path

import peewee
import pytest

from dramatiq_durable import AuditWriteFailed, Monitor

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

pytestmark = [
    pytest.mark.failure(53),
    pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True),
]


def test_the_table_is_created_with_the_rights_for_it(of_app, grant, database_url, command_on):
    of_it = re.findall("CREATE|INDEX|SELECT", rights_of("schema create", database_url))
    create = command_on(of_app[0])
    for right in of_it:
        assert create("schema create").exit_code != 0
        if right == "SELECT":
            # A right on a table that is not there yet is one on all of the database.
            right = f"SELECT ON {database_url.rpartition('/')[2]}.*"  # noqa: PLW2901
        grant(right)
    assert create("schema create").stdout == "durable_audits is ready\ndurable_monitors is ready\n"


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
            for table in ("durable_audits", "durable_monitors"):
                db.execute_sql(f"ALTER TABLE {table} OWNER TO app")
        elif "mysql" in database_url:
            for table in ("durable_audits", "durable_monitors"):
                grant(f"{right} ON {table}")
        else:
            assert migrate("schema migrate").exit_code != 0
            grant(right)
    done = migrate("schema migrate")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "durable_audits is ready\n" in done.stdout


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


def test_a_monitor_that_may_not_write_that_it_runs_recovers_jobs_and_says_so_once(
    of_app, owner, grant, clock, caplog
):
    for right in ("SELECT", "UPDATE", "DELETE"):
        grant(right)
    owner[2].send("stale")
    clock.move(hours=1)
    monitor = Monitor(of_app[0])
    for recovered in (1, 0):
        done = monitor.run_once()
        assert done.recovered == recovered
        monitor.liveness.passed(done)
    [record] = [r for r in caplog.records if "This monitor has trouble to show" in r.getMessage()]
    assert (
        "may not write durable_monitors; grant its database user SELECT, INSERT, UPDATE and DELETE"
        in (record.getMessage())
    )


def test_without_the_right_to_see_monitors_status_says_so_and_the_rest(
    of_app, owner, grant, command_on
):
    grant("SELECT")
    owner[2].send("look")
    done = command_on(of_app[0])("status")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("1 pending")
    assert "which monitors run is not known" in done.stdout
    doctor = command_on(of_app[0])("doctor")
    assert doctor.exit_code == 1
    assert "durable_monitors may not be read; grant SELECT on it" in doctor.stdout


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_sender_says_which_right_is_missing(of_app, owner, grant, audits, in_transaction):
    _, durable, job, _ = of_app
    _, owned, _, _ = owner
    grant("SELECT")
    around = durable.database.atomic() if in_transaction else nullcontext()
    with pytest.raises(AuditWriteFailed, match=r"denied.*grant its user SELECT, INSERT"), around:
        job.send("now")
    assert audits(owned) == []
