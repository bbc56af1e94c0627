"""Processes race for the same audits, at each isolation level: who has won is never in doubt.

What a database refuses on the way, for a deadlock or a serialization failure, is retried and noticed by nobody.
"""

import multiprocessing
import random
from collections import Counter
from datetime import timedelta

import pytest
from playhouse.db_url import connect

from dramatiq_durable.connections import Connections
from dramatiq_durable.models import Audit
from dramatiq_durable.store import Claim, Held, Store

from .conftest import each_isolation

PROCESSES, AUDITS = 4, 150
STEPS = 15  # in which they go side by side, lest one is done before the others have begun
MINUTE = timedelta(minutes=1)

pytestmark = [pytest.mark.failure(39), each_isolation]

# Cheaper than an interpreter for each racer, and without the threads of this one.
multiprocess = multiprocessing.get_context("forkserver")
multiprocess.set_forkserver_preload([__name__, "psycopg", "pymysql"])


class Racer:
    """One of those who act on the same audits; each verb returns the ids at which it was successful."""

    def __init__(self, number, url, options, moved):
        self.name = f"racer {number}"
        database = connect(url, **options)

        class Bound(Audit):
            pass

        Bound.bind(database)
        Store.clock_offset = moved
        self.store = Store(Bound, "tests", Connections(database))
        self.stales = {stale.message_id: stale for stale in self.store.stale(AUDITS)}

    def claim(self, ids, epoch=0):
        return [each for each in ids if self.store.claim(each, epoch, self.name, worker="w")]

    def claim_together(self, ids):
        claims = [Claim(each, 0, self.name, None, "w", None, None) for each in ids]
        return [held.message_id for held in self.store.claim_all(claims)]

    def mark(self, ids):
        return [each for each in ids if self.store.mark(self.stales[each], MINUTE)]

    def take_over(self, ids):
        return [each for each in ids if self.mark([each]) and self.claim([each], 1)]

    def cancel(self, ids):
        return [each for each in ids if sum(self.store.cancel([each]))]

    def complete(self, ids):
        """What the keeper of a process does, in one statement for all."""
        holds = [Held(each, 1, "holder") for each in ids]
        if random.random() < 0.5:
            self.store.heartbeat(holds)
        return [held.message_id for held in set(holds) - self.store.complete(holds)]


def run(number, url, options, moved, verb, ids, step, outcomes):
    racer = Racer(number, url, options, moved)
    successes, size = [], len(ids) // STEPS
    for start in range(0, len(ids), size):
        step.wait(30)
        part = ids[start : start + size]
        successes += getattr(racer, verb)(random.sample(part, size))
    outcomes.put((verb, successes))


@pytest.fixture
def race(database_url, isolation):
    """``race((verb, ids), ...)``: a process for each; how often each verb was successful at each audit."""

    def race(*parts):
        step, outcomes = multiprocess.Barrier(len(parts)), multiprocess.Queue()
        common = (database_url, isolation, Store.clock_offset)
        racers = [
            multiprocess.Process(target=run, args=(number, *common, *part, step, outcomes))
            for number, part in enumerate(parts)
        ]
        for racer in racers:
            racer.start()
        won: dict[str, Counter[str]] = {}
        for _ in racers:
            verb, ids = outcomes.get(timeout=60)
            won.setdefault(verb, Counter()).update(ids)
        for racer in racers:
            racer.join(30)
        assert [racer.exitcode for racer in racers] == [0] * len(racers)
        return won

    return race


@pytest.mark.parametrize("verb", ["claim", "claim_together", "mark"])
def test_each_audit_has_one_winner(rows, race, clock, verb):
    ids = [rows.enqueue().message_id for _ in range(AUDITS)]
    clock.move(hours=1)
    won = race(*[(verb, ids)] * PROCESSES)
    assert won[verb] == Counter(ids)


def test_a_job_is_either_completed_by_its_holder_or_taken_over(store, rows, race, clock):
    ids = [rows.enqueue().message_id for _ in range(AUDITS)]
    for message_id in ids:
        assert store.claim(message_id, 0, "holder", worker="w")
    clock.move(hours=1)
    won = race(("complete", ids[::2]), ("complete", ids[1::2]), *[("take_over", ids)] * 2)
    completed, taken_over = won["complete"], won["take_over"]
    assert completed + taken_over == Counter(ids)
    assert len(completed) > 0 < len(taken_over)
    for message_id in ids:
        row = rows.of(message_id)
        if message_id in completed:
            assert (row["state"], row["epoch"], row["claim_id"]) == ("completed", 1, "holder")
        else:
            assert (row["state"], row["epoch"]) == ("running", 2)


@pytest.mark.failure(29)
def test_a_job_does_not_start_once_it_is_cancelled_nor_is_it_completed_then(store, rows, race):
    ids = [rows.enqueue().message_id for _ in range(AUDITS)]
    won = race(*[("claim", ids), ("cancel", ids)] * 2)
    started, cancelled = won["claim"], won["cancel"]
    assert cancelled == Counter(ids)
    assert 0 < len(started) < len(ids)
    for message_id in ids:
        row = rows.of(message_id)
        assert row["start_count"] == started[message_id] <= 1
        assert (row["state"], row["epoch"]) == ("cancelled", row["start_count"] + 1)
        held = Held(message_id, 1, str(row["claim_id"]))
        assert store.heartbeat([held]) == store.complete([held]) == {held}
        assert rows.of(message_id) == row
