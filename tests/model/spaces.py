"""Where the protocol is searched: few actors and few faults of a kind, for each promise."""

from __future__ import annotations

from .search import Space
from .state import Budget

SPACES = {
    # sending
    "sending": Space(Budget(sender_dies=1, broker_wiped=1, worker_dies=1)),
    "a refused push": Space(Budget(push_refused=1, backlog=1, sender_dies=1)),
    "a failed insert": Space(Budget(insert_fails=1, sender_dies=1)),
    "refused by a middleware": Space(Budget(refused_by_middleware=1, sender_dies=1)),
    "a transaction": Space(
        Budget(sender_dies=1, broker_wiped=1, worker_dies=1), in_transaction=True
    ),
    "a transaction rolled back": Space(Budget(rollback=1, sender_dies=1), in_transaction=True),
    "a slow transaction": Space(
        Budget(backlog=1, push_refused=1, sender_dies=1, monitor_dies=1), in_transaction=True
    ),
    # working
    "an overrun": Space(Budget(overrun=1, backlog=1)),
    "an overrun, and a crash": Space(Budget(overrun=1, worker_dies=1)),
    "crashes": Space(Budget(worker_dies=2, broker_wiped=1)),
    "retries": Space(Budget(raises=1, database_fails=1, backlog=1)),
    "a slow retry": Space(Budget(raises=1, overrun=1)),
    "a refused retry": Space(Budget(raises=1, push_refused=1, backlog=1, expires=1)),
    "exhausted": Space(Budget(exhausted=1, requeues=1, database_fails=1)),
    "skips": Space(Budget(throws=1, skips=1, backlog=1, database_fails=1)),
    "threads": Space(Budget(raises=1, backlog=1), processes=1, threads=2),
    "transaction()": Space(Budget(transactions=2, overrun=1, database_fails=1)),
    "transaction(), rolled back": Space(Budget(transactions=1, raises=1, worker_dies=1)),
    # the database
    "a lost audit": Space(Budget(failover=1, worker_dies=1)),
    "a failover": Space(Budget(failover=1, backlog=1)),
    "a deep failover": Space(Budget(failover=1, raises=1, database_fails=1), depth=3),
    # recovering
    "two monitors": Space(Budget(backlog=1, monitor_dies=1), monitors=2),
    "a dying monitor": Space(Budget(monitor_dies=1, broker_wiped=1)),
    "a lost message": Space(Budget(broker_wiped=2), monitors=2),
    "refused pushes": Space(Budget(push_refused=3, expires=1, backlog=1), processes=1),
    "unsendable": Space(Budget(unsendable=1, backlog=2), monitors=2),
    "expiration": Space(Budget(expires=1, backlog=1, overrun=1)),
    "a broker that tells": Space(Budget(hold=1, backlog=1, broker_wiped=1, stranded=1)),
    # ending
    "cancelled": Space(Budget(cancel=1, retry=1, overrun=1)),
    "cancelled twice": Space(Budget(cancel=2, retry=2)),
    "given up": Space(Budget(throws=1, retry=1, ages=1, backlog=1)),
    "cleanup": Space(Budget(cancel=1, retry=1, ages=1, worker_dies=1)),
    "an old message": Space(Budget(ages=1, worker_dies=1, backlog=1)),
}
