"""Two versions of the code on one table."""

import json
from datetime import timedelta

import pytest

NEW = """
    from dramatiq_durable import durable_actor
    from tests.crashes.staging import note, staged_broker

    broker = staged_broker()


    @durable_actor
    def kept(text):
        note(text)
"""

OLD = f"""{NEW}

    @durable_actor
    def removed(text):
        note(text)
"""


@pytest.mark.failure(26)
def test_a_job_whose_actor_is_missing_stays_open_and_runs_when_the_actor_is_back(
    make_stage, broker_url, sqlite_url, eventually
):
    options = {"backoff": [0, 0.3]}
    old = make_stage(OLD, broker_url, sqlite_url, **options)
    new = make_stage(NEW, broker_url, sqlite_url, **options)
    worker = new.worker()
    monitor = new.monitor()
    message = old.send("removed", "late")
    others = [old.send("kept", "before")]

    def sent_again():
        audit = new.audit(message)
        # It has none while a monitor sends it.
        wait = audit.enqueued_at and audit.due_at - audit.enqueued_at
        return audit.enqueue_count >= 2 and wait == timedelta(seconds=1.3)

    eventually(sent_again, message="not sent again, to wait for job_timeout and backoff")
    others.append(old.send("kept", "after"))
    assert {audit.state for audit in new.finished(*others)} == {"completed"}
    new.noted("before", "after")
    audit = new.audit(message)
    assert (audit.state, audit.start_count, audit.last_error) == ("pending", 0, None)
    assert json.loads(audit.payload)["args"] == ["late"]
    [visible] = [each for each in new.status()["actors"] if each["actor_name"] == "removed"]
    assert (visible["state"], visible["count"]) == ("pending", 1)

    worker.kill()
    old.worker()
    [audit] = old.finished(message)
    assert (audit.state, audit.start_count) == ("completed", 1)
    assert old.notes() == ["late"]
    assert monitor.returncode is None


WORKER = """
    import sys
    from dramatiq.cli import main, make_argument_parser
    sys.exit(main(make_argument_parser().parse_args(["app:broker", "-p", "1", "-t", "1"])))
"""


@pytest.mark.failure(43)
def test_code_newer_than_its_table_ends_with_the_command_to_run(
    make_stage, redis_url, sqlite_url, sqlite_db
):
    stage = make_stage(NEW, redis_url, sqlite_url)
    sqlite_db.execute_sql("ALTER TABLE durable_audits DROP COLUMN crash_count")
    worker, monitor = stage.app.python(WORKER), stage.monitor("--once")
    assert (worker.returncode != 0, monitor.wait()) == (True, 1)
    assert "`dramatiq-durable schema migrate BROKER`" in worker.stderr
    assert "`dramatiq-durable schema migrate app:broker`" in monitor.output().splitlines()[-1]
    assert stage.app.run("schema", "migrate", "app:broker").returncode == 0
    stage.worker()
    stage.finished(stage.send("kept", "text"))


@pytest.mark.failure(43)
def test_worker_and_monitor_work_on_while_the_table_gets_the_columns_of_the_next_version(
    make_stage, redis_url, postgres_url
):
    stage = make_stage(NEW, redis_url, postgres_url)
    worker, monitor = stage.worker(), stage.monitor()

    def jobs_are_done():
        sent = [stage.send("kept", "text")]
        stage.lose()
        # More than the driver looks at before it prepares their statements on the server.
        sent += [stage.send("kept", "text") for _ in range(10)]
        return {audit.state for audit in stage.finished(*sent)} == {"completed"}

    assert jobs_are_done()
    database = stage.durable.database
    database.execute_sql("ALTER TABLE durable_audits ADD COLUMN next_version VARCHAR(50) NULL")
    database.execute_sql("ALTER TABLE durable_audits ADD COLUMN counts INTEGER NOT NULL DEFAULT 7")
    database.close()
    assert jobs_are_done()
    assert (worker.returncode, monitor.returncode) == (None, None)
    assert "ERROR" not in worker.output() + monitor.output()
