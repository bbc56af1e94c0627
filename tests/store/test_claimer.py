"""Threads that find no free connection have their claims made by those that do."""

import threading
import time

import pytest
from dramatiq.middleware import Interrupt
from dramatiq.threading import raise_thread_exception
from playhouse.db_url import connect

from dramatiq_durable import DurableError
from dramatiq_durable.claimer import Claimer
from dramatiq_durable.connections import LANES, Connections
from dramatiq_durable.store import CLAIMS, Claim, Store
from tests.support.proxy import Proxy

THREADS = 24

pytestmark = pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)


@pytest.fixture
def proxy(database_url):
    proxy = Proxy(database_url)
    yield proxy
    proxy.close()


@pytest.fixture
def far_store(store, proxy, make_store):
    """The same audits, in a database that is as far as *proxy* makes it."""
    far = make_store(connect(proxy.url))
    far.check_table()
    return far


@pytest.fixture
def claims(rows):
    ids = [rows.enqueue().message_id for _ in range(THREADS)]
    return [Claim(each, 0, f"claim of {each}", None, "w", None, None) for each in ids]


class Claiming(threading.Thread):
    """Claims, and keeps what came of it."""

    def __init__(self, claimer, claim):
        super().__init__()
        self.claimer, self.wanted = claimer, claim
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self.claimer.claim(self.wanted)
        except (DurableError, Interrupt) as error:
            self.outcome = error

    @property
    def holds(self):
        self.join(30)
        return self.outcome == self.wanted.held


def test_more_threads_than_connections_claim_in_few_statements(
    far_store, proxy, claims, rows, eventually
):
    proxy.delay = 0.02
    events = []
    far_store.database.query_hooks.append(events.append)
    claimer = Claimer(far_store)
    threads = [Claiming(claimer, claim) for claim in claims]
    assert all(thread.holds for thread in threads)
    assert {rows.of(claim.message_id)["state"] for claim in claims} == {"running"}
    assert LANES < sum("UPDATE" in str(event) for event in events) < THREADS / 2


def test_of_many_copies_of_a_message_one_is_claimed(far_store, proxy, rows):
    message_id = rows.enqueue().message_id
    proxy.delay = 0.02
    claimer = Claimer(far_store)
    claims = [Claim(message_id, 0, f"c{n}", None, "w", None, None) for n in range(CLAIMS + 1)]
    threads = [Claiming(claimer, claim) for claim in claims]
    assert sum(thread.holds for thread in threads) == 1
    assert [thread.outcome for thread in threads].count(None) == CLAIMS


def test_one_that_somebody_holds_locked_holds_up_no_other(far_store, proxy, claims, rows, other_db):
    proxy.delay = 0.02
    claimer = Claimer(far_store)
    locked = claims[THREADS // 2].message_id
    with other_db.atomic() as transaction:
        other_db.execute_sql(
            "UPDATE durable_audits SET worker = 'x' WHERE message_id = %s", [locked]
        )
        threads = [Claiming(claimer, claim) for claim in claims]
        others = [thread for thread in threads if thread.wanted.message_id != locked]
        assert all(thread.holds for thread in others)
        transaction.rollback()
    [last] = set(threads) - set(others)
    assert last.holds


def test_an_interrupted_thread_leaves_the_claims_that_it_makes_for_others_to_them(
    far_store, proxy, claims
):
    proxy.delay = 0.3
    claimer = Claimer(far_store)
    threads = [Claiming(claimer, claim) for claim in claims]
    struck = threads[::3]  # of those that have a connection and of those that wait
    for thread in struck:
        raise_thread_exception(thread.ident, Interrupt)
    began = time.monotonic()
    assert all(thread.holds for thread in threads if thread not in struck)
    assert all(thread.holds or isinstance(thread.outcome, Interrupt) for thread in struck)
    assert time.monotonic() - began < 20


def test_when_the_database_is_away_each_thread_is_told(far_store, proxy, claims):
    proxy.down()
    claimer = Claimer(far_store)
    threads = [Claiming(claimer, claim) for claim in claims[: LANES * 2]]
    assert not any(thread.holds for thread in threads)
    assert {type(thread.outcome).__name__ for thread in threads} == {"DatabaseUnreachable"}
    proxy.up()
    assert Claiming(claimer, claims[0]).holds


class Crowded(Connections):
    """Never seems to have a connection free: they were lost to interrupts, or are taken at once by others."""

    def has_room(self):
        return False


def test_who_has_waited_for_a_free_connection_takes_his_turn_with_all_others(store, db, claims):
    crowded = Store(store.audit, store.namespace, Crowded(db))
    claimer = Claimer(crowded)
    threads = [Claiming(claimer, claim) for claim in claims]
    assert all(thread.holds for thread in threads)
    crowded.connections.close()
