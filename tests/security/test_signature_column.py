"""The table of the version before lacks a column; `schema migrate` adds it."""

import pytest

from dramatiq_durable.errors import SchemaMismatch

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


def test_after_the_migration_workers_start_and_old_audits_are_there(
    older_table, process, running_worker, clock, command_on
):
    newer = process()
    with pytest.raises(SchemaMismatch, match="schema migrate"), running_worker(newer.broker):
        pass
    assert command_on(newer.broker)("schema migrate").exit_code == 0
    newer.durable.store.connections.close()
    clock.move(hours=1)
    assert newer.monitor().recovered == 1
    newer.work()
    assert newer.ran == ["of the version before"]
    signing = process(signing_key=KEY)
    assert len(signing.audit(signing.charge.send("signed")).signature) == 64
