"""Those who send one key at the same time, and work it off: whatever the isolation, one audit of it is open at most."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from playhouse.db_url import connect

from .conftest import each_isolation

SENDERS, ROUNDS = 8, 60
pytestmark = [pytest.mark.failure(39), each_isolation]


class Span(NamedTuple):
    """Something has happened between the two, on the monotonic clock."""

    begin: float
    end: float


class Sent(NamedTuple):
    message_id: str
    inserted: bool
    when: Span


@pytest.fixture
def stores(database_url, isolation, make_store):
    """One for each sender, as in a process of its own, and one more."""
    made = [make_store(connect(database_url, **isolation or {})) for _ in range(SENDERS + 1)]
    made[0].create_tables()
    return made


@pytest.fixture
def send(rows_of):
    """``send(store, key)``."""

    def send(store, key):
        new = rows_of(store).new(unique_key=key)
        begin = time.monotonic()
        there = store.enqueue_unless_open(new)
        return Sent(there or new.message_id, there is None, Span(begin, time.monotonic()))

    return send


def test_of_those_who_send_a_key_at_once_one_inserts_and_all_get_its_id(stores, send):
    together = threading.Barrier(SENDERS)

    def sender(store):
        sent = []
        for key in map(str, range(20)):
            together.wait(30)
            sent.append(send(store, key))
        return sent

    with ThreadPoolExecutor(SENDERS) as pool:
        rounds = zip(*pool.map(sender, stores[1:]), strict=True)
    for sent in rounds:
        assert Counter(each.inserted for each in sent)[True] == 1
        assert len({each.message_id for each in sent}) == 1
    assert len(stores[0].list_audits()) == 20


def test_each_gets_the_id_of_an_audit_that_was_open_and_no_two_are_open_together(stores, send):
    completed = {}

    def sender_and_worker(store):
        sent = []
        for _ in range(ROUNDS):
            sent.append(send(store, "k"))
            claim_id = threading.current_thread().name
            held = store.claim(sent[-1].message_id, 0, claim_id, worker="w")
            if held is not None:
                begin = time.monotonic()
                assert store.complete([held]) == set()
                completed[held.message_id] = Span(begin, time.monotonic())
        return sent

    with ThreadPoolExecutor(SENDERS) as pool:
        sent = [each for batch in pool.map(sender_and_worker, stores[1:]) for each in batch]
    inserted = {each.message_id: each.when for each in sent if each.inserted}
    assert len(inserted) == sum(each.inserted for each in sent) > ROUNDS
    assert {audit.message_id for audit in stores[0].list_audits()} == inserted.keys()
    never = Span(float("inf"), float("inf"))
    for each in sent:
        # It was open at some moment of the send.
        assert inserted[each.message_id].begin <= each.when.end
        assert completed.get(each.message_id, never).end >= each.when.begin
    for first, then in itertools.permutations(inserted, 2):
        ended = completed.get(first, never)
        both = inserted[first].end < inserted[then].begin and inserted[then].end < ended.begin
        assert not both
