"""The application of a lane, in each of its processes: its broker, its database, its actors."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from datetime import timedelta
from typing import Any

import dramatiq
import peewee
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO
from playhouse.db_url import connect

from dramatiq_durable import DurableMiddleware
from dramatiq_durable.pipelining import Pipelining
from dramatiq_durable.store import Store, monitoring, sending

from . import mutants
from .ledger import Ledger
from .points import METHODS, Hooks, Points
from .setting import Setting, current

#: Seconds that a process must have stood still for it to be noted, and between two looks.
STALL, LOOK = 0.4, 0.2

setting: Setting = current()
name, role = os.environ["CHAOS_NAME"], os.environ["CHAOS_ROLE"]
ledger = Ledger(setting.path, name)
points = Points(setting.path, name, role, ledger)


def _database(url: str) -> peewee.Database:
    database: Any = connect(url)
    if "passwd" in database.connect_params:
        database.connect_params["password"] = database.connect_params.pop("passwd")
    found: peewee.Database = database
    return found


class Effect(peewee.Model):
    """What a job has done in the application's own database."""

    job = peewee.CharField()
    token = peewee.IntegerField()
    at = peewee.DoubleField()

    class Meta:
        database = _database(setting.database_url)
        table_name = "chaos_effects"


database: peewee.Database = Effect._meta.database


def _broker(url: str) -> dramatiq.Broker:
    if url.startswith("redis"):
        return RedisBroker(url=url)
    return RabbitmqBroker(url=url, confirm_delivery=True)


def _add_middleware(made: dramatiq.Broker) -> None:
    made.add_middleware(AsyncIO())
    if not setting.plain:
        made.add_middleware(DurableMiddleware(database, **setting.options()))
    made.add_middleware(Hooks(points))


def _watch_for_stalls() -> None:
    """Note how long this process, or the way of a write to the database and back, stood still."""
    # On a connection of its own, for the others are what is tested.
    probe: Any = _database(setting.database_url)
    # A write waits for the disk as theirs do; in SQLite it would keep the others from writing.
    in_file = isinstance(probe, peewee.SqliteDatabase)
    statement = (
        "UPDATE chaos_probe SET number = 0" if in_file else "INSERT INTO chaos_probe VALUES (0)"
    )
    parent = os.getppid()
    while os.getppid() == parent:
        before = time.monotonic()
        select.select([], [], [], LOOK)
        try:
            probe.execute_sql(statement)
        except Exception:  # noqa: BLE001 - it is away, as the injector knows
            probe.close()
        seconds = time.monotonic() - before - LOOK
        if seconds > STALL:
            ledger.write("STALL", f"{seconds:.3f}")
    # Dramatiq's workers outlive their master when that is killed alone.
    os.killpg(0, signal.SIGKILL)


def _note_pushes() -> None:
    """Note what this monitor pushes, and for which due period of the audit."""
    periods: dict[str, Any] = {}
    store_class: Any = Store
    pipelining: Any = Pipelining
    mark_all, push_all = store_class.mark_all, pipelining.push_all

    def noted_mark_all(store: Any, wanted: Any) -> Any:
        marked = mark_all(store, wanted)
        for each in marked:
            stale = each.stale
            # What was lost twice is sent twice, though it may be due at the same moment.
            period = f"{stale.due_at:%H:%M:%S.%f}/{stale.enqueue_count}"
            periods[stale.message_id] = period
        return marked

    def noted_push_all(self: Any, messages: Any) -> Any:
        results = push_all(self, messages)
        for (message, _), result in zip(messages, results, strict=True):
            if not isinstance(result, Exception):
                epoch, period = message.options["durable_epoch"], periods[message.message_id]
                ledger.write("PUSH", message.args[0], epoch, period)
        return results

    store_class.mark_all = noted_mark_all
    pipelining.push_all = noted_push_all


if "LD_PRELOAD" in os.environ:
    # libfaketime moves the absolute time of the monotonic clock that CPython waits for.
    vars(time)["sleep"] = lambda seconds: select.select([], [], [], seconds) and None
mutants.apply(setting.mutant)
for module in (monitoring, sending):
    vars(module)["PUSH_LEASE"] = timedelta(seconds=setting.push_lease)
broker = _broker(setting.broker_url)
_add_middleware(broker)
for method, point in METHODS[role].items():
    points.around(Store, method, point)
if role == "monitor":
    _note_pushes()
dramatiq.set_broker(broker)
if role == "worker":
    threading.Thread(target=_watch_for_stalls, daemon=True).start()

from . import actors  # noqa: E402, F401 - they are declared on the broker
