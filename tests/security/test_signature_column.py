"""The table of the version before lacks a column; the changelog has the command."""

import re
from pathlib import Path

import pytest

from dramatiq_durable.errors import SchemaMismatch

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
KEY = "k" * 16

pytestmark = [pytest.mark.failure(43), pytest.mark.failure(52)]


@pytest.fixture
def older_table(process, db):
    """The table of the version before, with an audit in it."""
    older = process()
    message = older.charge.send("of the version before")
    with db.connection_context():
        db.execute_sql("ALTER TABLE durable_audits DROP COLUMN signature")
    older.durable.store.connections.close()
    return message


def test_after_the_command_of_the_changelog_workers_start_and_old_audits_are_there(
    older_table, process, db, running_worker, clock
):
    newer = process()
    with pytest.raises(SchemaMismatch, match="changelog"), running_worker(newer.broker):
        pass
    [command] = re.findall(r"`(ALTER TABLE durable_audits ADD COLUMN signature [^`]+)`", CHANGELOG)
    with db.connection_context():
        db.execute_sql(command)
    newer.durable.store.connections.close()
    clock.move(hours=1)
    assert newer.monitor().recovered == 1
    newer.work()
    assert newer.ran == ["of the version before"]
    signing = process(signing_key=KEY)
    assert len(signing.audit(signing.charge.send("signed")).signature) == 64
