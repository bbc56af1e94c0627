"""A store on each database, rows in it, and what one can see of its statements."""

import uuid
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import peewee
import pytest
from playhouse.db_url import connect

from dramatiq_durable.connections import Connections
from dramatiq_durable.models import Audit
from dramatiq_durable.store import Held, NewAudit, Store

JOB_TIMEOUT = timedelta(seconds=30)
BACKOFF = timedelta(seconds=10)
LEASE = timedelta(seconds=20)

_EXPLAIN = {
    "sqlite": "EXPLAIN QUERY PLAN ",
    "postgresql": "EXPLAIN ",
    "mysql": "EXPLAIN ",
}


_LEVELS = ["read committed", "repeatable read", "serializable"]

each_isolation = pytest.mark.parametrize(
    ("database_url", "isolation"),
    [("sqlite", None), *[(kind, lv) for kind in ("postgres", "mariadb") for lv in _LEVELS]],
    indirect=True,
)


class Rows:
    """The rows of *store*, made by its own transitions."""

    def __init__(self, store):
        self.store = store

    def new(self, **changes):
        options = {
            "message_id": str(uuid.uuid4()),
            "actor_name": "charge",
            "queue_name": "default",
            "payload": b"payload",
            "delay": timedelta(0),
            "job_timeout": JOB_TIMEOUT,
            "lease": LEASE,
            "backoff": BACKOFF,
        }
        return NewAudit(**{**options, **changes})

    def enqueue(self, **changes):
        new = self.new(**changes)
        assert self.store.enqueue(new)
        return new

    def claim(self, message_id=None, epoch=0, **changes):
        """A hold on the job of a copy that carries *epoch*; without an id, on a new one."""
        message_id = message_id or self.enqueue(**changes).message_id
        held = self.store.claim(message_id, epoch, str(uuid.uuid4()), worker="w1")
        assert held is not None
        return held

    def complete(self, **changes):
        held = self.claim(**changes)
        assert self.store.complete([held]) == set()
        return held.message_id

    def kill(self, **changes):
        held = self.claim(**changes)
        assert self.store.dead(held, "given up")
        return held.message_id

    def cancel(self, **changes):
        new = self.enqueue(**changes)
        assert list(self.store.cancel([new.message_id])) == [1]
        return new.message_id

    def of(self, message_id):
        """Every column of a row; None when there is none."""
        found = self.store.get(message_id)
        return None if found is None else dict(found.__data__)

    def changed(self, message_id, transition):
        """The columns that *transition* writes, with their values."""
        before = self.of(message_id)
        assert transition()
        after = self.of(message_id)
        return {name: value for name, value in after.items() if value != before[name]}

    def stale(self, message_id):
        """The row as a monitor reads it."""
        return next(s for s in self.store.stale(10_000) if s.message_id == message_id)

    def clock(self):
        """The time by the database's clock."""
        query = peewee.Select(columns=[self.store.now()]).tuples()
        [[now]] = self.store.connections.run(lambda lane: list(query.execute(lane)))
        return datetime(1970, 1, 1) + timedelta(microseconds=int(now))


@pytest.fixture
def make_store():
    """``make_store(database, namespace=…, table=…)``: a store with connections of its own."""
    made = []

    def make(database, namespace="tests", table="durable_audits", **options):
        class Bound(Audit):
            class Meta:
                table_name = table

        Bound.bind(database)
        made.append(Store(Bound, namespace, Connections(database, **options)))
        return made[-1]

    yield make
    for store in made:
        store.connections.close()


@pytest.fixture
def store(db, make_store):
    store = make_store(db)
    store.create_tables()
    return store


@pytest.fixture
def rows(store):
    return Rows(store)


@pytest.fixture
def rows_of():
    return Rows


@pytest.fixture
def hold_of():
    """What a worker with *claim_id* would hold, had it claimed the message's first copy."""
    return lambda message_id, claim_id="mine": Held(message_id, 1, claim_id)


@pytest.fixture
def statements(db, store):
    """The statements of *db*'s stores since the fixture was asked for, as peewee's events."""
    store.check_table()  # the connection, with what it sets at its start, is open
    events = []
    db.query_hooks.append(events.append)
    yield events
    db.query_hooks.remove(events.append)


@pytest.fixture
def other_db(database_url):
    """A second Database object, as of another application, that waits for locks only shortly."""
    waits = {"sqlite": {"timeout": 0.2}}.get(urlsplit(database_url).scheme, {})
    database = connect(database_url, **waits)
    yield database
    if not database.is_closed():
        database.close()


@pytest.fixture
def isolation(request, database_url):
    """The options of a connection whose transactions are isolated as the parameter says."""
    level = request.param
    if level is None:
        return {}
    if database_url.startswith("mysql"):
        return {"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"}
    words = level.replace(" ", "\\ ")
    return {"options": f"-c default_transaction_isolation={words}"}


@pytest.fixture
def analyze(database_url, db, store):
    """Have the database gather what its planner goes by."""
    verb = {"mysql": "ANALYZE TABLE"}.get(urlsplit(database_url).scheme, "ANALYZE")
    return lambda: db.execute_sql(f"{verb} {store.audit._meta.table_name}").close()


@pytest.fixture
def plan(database_url, db):
    """``plan(event)``: how the database goes about a statement, as text.

    Of MySQL's table only the index it uses, for the others it merely considered are in it too.
    """

    def explain(event):
        scheme = urlsplit(database_url).scheme
        cursor = db.execute_sql(_EXPLAIN[scheme] + event.sql, event.params)
        names = [column[0] for column in cursor.description]
        found = cursor.fetchall()
        if "key" in names:
            return "\n".join(str(row[names.index("key")]) for row in found)
        return "\n".join(" ".join(map(str, row)) for row in found)

    return explain


@pytest.fixture
def visited(database_url, db):
    """``visited(event)``: how many rows the database looks at for a SELECT; SQLite: how many instructions it runs."""
    scheme = urlsplit(database_url).scheme
    return lambda event: _VISITED[scheme](db, event)


def _instructions(db, event):
    count = [0]
    connection = db.connection()
    connection.set_progress_handler(lambda: count.__setitem__(0, count[0] + 1), 1)
    db.execute_sql(event.sql, event.params).fetchall()
    connection.set_progress_handler(None, 1)
    return count[0]


def _plan_rows(db, event):
    [[[explained]]] = db.execute_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {event.sql}", event.params
    ).fetchall()
    nodes, total = [explained["Plan"]], 0
    while nodes:
        node = nodes.pop()
        total += node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        nodes += node.get("Plans", [])
    return total


def _handler_reads(db, event):
    db.execute_sql("FLUSH LOCAL STATUS")
    db.execute_sql(event.sql, event.params).fetchall()
    counters = db.execute_sql("SHOW LOCAL STATUS LIKE 'Handler_read_%%'").fetchall()
    return sum(int(value) for _, value in counters)


_VISITED = {"sqlite": _instructions, "postgresql": _plan_rows, "mysql": _handler_reads}
