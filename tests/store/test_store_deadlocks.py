"""A statement for many audits meets a transaction that locks the same rows in the opposite order."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [
    pytest.mark.failure(39),
    pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True),
]

# What makes ours the victim: PostgreSQL's looks first, MariaDB's has less to undo.
SETTINGS = {
    "postgresql": """
        DO $$ BEGIN
            EXECUTE 'ALTER DATABASE ' || current_database() || ' SET deadlock_timeout = 900';
            SET deadlock_timeout = '60s';
        END $$
    """,
    "mysql": "SELECT 1",
}

WAITING = {
    "postgresql": "SELECT COUNT(*) FROM pg_locks WHERE NOT granted",
    # Not from innodb_trx, which does not change while somebody looks at it all the time.
    "mysql": "SELECT variable_value FROM information_schema.global_status"
    " WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'",
}


class Other:
    """Another application, in a transaction."""

    def __init__(self, database, scheme):
        self.database = database
        self.scheme = scheme
        database.execute_sql(SETTINGS[scheme])
        database.execute_sql("CREATE TABLE ballast (n INTEGER)")

    def begin(self):
        self.database.begin()
        self.database.execute_sql("INSERT INTO ballast VALUES " + ", ".join(["(1)"] * 100))

    def change(self, message_id):
        sql = "UPDATE durable_audits SET worker = 'another' WHERE message_id = %s"
        self.database.execute_sql(sql, (message_id,))

    def sees_somebody_wait(self):
        return int(self.database.execute_sql(WAITING[self.scheme]).fetchone()[0]) > 0


@pytest.fixture
def other(database_url, other_db, store):
    return Other(other_db, database_url.partition(":")[0])


@pytest.mark.parametrize("verb", ["heartbeat", "complete"])
def test_what_the_keeper_writes_is_repeated_when_it_is_the_victim(
    store, rows, other, statements, eventually, verb
):
    for message_id in ("message 1", "message 2"):
        rows.enqueue(message_id=message_id)
    first, second = rows.claim("message 1"), rows.claim("message 2")
    keepers = store.reserved()
    keepers.check_table()
    del statements[:]
    other.begin()
    other.change(second.message_id)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(getattr(keepers, verb), [first, second])
        eventually(other.sees_somebody_wait)
        other.change(first.message_id)
        other.database.commit()
        assert refused.result(timeout=20) == set()
    assert [event.sql[:6] for event in statements] == ["UPDATE"] * 2
    assert {rows.of(held.message_id)["worker"] for held in (first, second)} == {"another"}
