"""What doctor asks the databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ..errors import AccessRefused, DatabaseUnreachable, SchemaMismatch
from ..middleware import DurableMiddleware
from ..store import Seen, Store, differences
from .findings import Examined, Finding, fine, unreachable, wrong
from .printing import printable

#: By how much a clock may be wrong; it is asked over a network.
CLOCK_TOLERANCE = timedelta(seconds=3)

MIGRATE = "run `dramatiq-durable schema migrate BROKER`"
START = "run `dramatiq-durable monitor BROKER` on at least one machine"


def reach(middleware: DurableMiddleware) -> tuple[dict[Store, timedelta], list[Finding]]:
    """The audits whose database answers, with how far this machine's clock is ahead of its; the others are said."""
    clocks: dict[Store, timedelta] = {}
    down: dict[object, Finding] = {}
    for store in middleware.stores():
        if store.connections in down:
            continue
        try:
            clocks[store] = store.clock_error()
        except DatabaseUnreachable as error:
            down[store.connections] = unreachable("database", str(error))
    return clocks, list(down.values())


def monitors_within_reach(
    middleware: DurableMiddleware, clocks: dict[Store, timedelta]
) -> list[Seen] | Finding:
    """The monitors that were seen, or why that is not known."""
    if middleware.store not in clocks:
        return unreachable(
            "monitor", "which ones run is not known, for the database does not answer"
        )
    try:
        return middleware.monitors.seen()
    except SchemaMismatch:
        says = "which ones run is not known without the table durable_monitors"
        return wrong("monitor", says, MIGRATE)
    except AccessRefused:
        says = "which ones run is not known, for durable_monitors may not be read"
        return wrong("monitor", says, "grant SELECT on it")
    except DatabaseUnreachable as error:
        return unreachable("monitor", f"which ones run is not known: {error}")


def check_schema(examined: Examined) -> Iterator[Finding]:
    within_reach = {store.connections for store in examined.clocks}
    for table in examined.middleware.tables():
        if table.connections not in within_reach:
            continue
        try:
            found = differences(table)
        except AccessRefused as error:
            yield wrong("schema", str(error), "")
            continue
        for each in found:
            advice = MIGRATE if each.statements else "add it by a migration of your own"
            yield wrong("schema", f"{table.name}: {each.says}", advice)
        if not found:
            yield fine("schema", f"{table.name} is as this version wants it")


def check_clock(examined: Examined) -> Iterator[Finding]:
    ahead = max(examined.clocks.values(), key=abs, default=None)
    if ahead is None:
        return
    if abs(ahead) <= CLOCK_TOLERANCE:
        yield fine("clock", "this machine's agrees with the database's")
        return
    which = "ahead of" if ahead > timedelta(0) else "behind"
    yield wrong(
        "clock",
        f"this machine's is {printable(abs(ahead))} {which} the database's, and Dramatiq keeps delays by it",
        "set both by NTP",
    )


def check_monitors(examined: Examined) -> Iterator[Finding]:
    if isinstance(examined.monitors, Finding):
        yield examined.monitors
        return
    for seen in examined.running:
        yield fine("monitor", f"{seen} was seen {printable(seen.ago)} ago")
    if examined.running:
        return
    says = "none was ever seen"
    if examined.monitors:
        last = examined.monitors[0]
        end = "then it was stopped" if last.stopped else "and was not stopped as it should be"
        says = f"none was seen for {printable(last.ago)}; the last was {last}, {end}"
    yield wrong("monitor", says, START)


def check_stale(examined: Examined) -> Iterator[Finding]:
    # By then a monitor has looked at it, and has sent it, or put it off.
    pauses = [seen.monitor.interval for seen in examined.running]
    limit = examined.stale + max(pauses, default=timedelta(0))
    for store in examined.clocks:
        name = store.table.name
        try:
            oldest = store.oldest_stale()
        except SchemaMismatch:
            continue  # which is said already
        except AccessRefused:
            yield wrong("stale", f"{name} may not be read", "grant SELECT on it")
            continue
        if oldest is None or oldest <= limit:
            yield fine("stale", f"{name} has nothing that was overlooked")
            continue
        look = "the monitor's log may say why" if examined.running else START
        yield wrong(
            "stale",
            f"in {name} the oldest stale audit is so for {printable(oldest)}",
            f"see `dramatiq-durable list BROKER --stale`; {look}",
        )
