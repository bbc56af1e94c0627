"""Six processes race for four hundred audits: each has exactly one winner."""

import multiprocessing
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from playhouse.db_url import connect

from dramatiq_durable.connections import Connections
from dramatiq_durable.models import Audit
from dramatiq_durable.store import Store

PROCESSES, AUDITS = 6, 400
MINUTE = timedelta(minutes=1)


def race(action, url, options, ids, moved, start, wins):
    Store.clock_offset = moved
    database = connect(url, **options)

    class Bound(Audit):
        pass

    Bound.bind(database)
    store = Store(Bound, "tests", Connections(database))
    stales = {stale.message_id: stale for stale in store.stale(AUDITS)}
    store.check_table()
    start.wait()
    for message_id in ids:
        if action == "claim":
            won = store.claim(message_id, 0, str(uuid.uuid4()), worker="w") is not None
        else:
            won = store.mark(stales[message_id], MINUTE) is not None
        if won:
            wins.put(message_id)
    wins.put(None)


@pytest.mark.parametrize("action", ["claim", "mark"])
def test_each_audit_has_one_winner(store, rows, database_url, isolation, clock, action):
    ids = [rows.enqueue().message_id for _ in range(AUDITS)]
    if action == "mark":
        clock.move(hours=1)
    context = multiprocessing.get_context("spawn")
    start, wins = context.Barrier(PROCESSES), context.Queue()
    racers = [
        context.Process(
            target=race,
            args=(action, database_url, isolation, ids, Store.clock_offset, start, wins),
        )
        for _ in range(PROCESSES)
    ]
    for racer in racers:
        racer.start()
    won: Counter[str] = Counter()
    finished = 0
    while finished < PROCESSES:
        message_id = wins.get(timeout=60)
        if message_id is None:
            finished += 1
        else:
            won[message_id] += 1
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert won == Counter(dict.fromkeys(ids, 1))
