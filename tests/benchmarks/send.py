"""How many times per second one thread can ``send()``."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack

from .peers import SENDERS, floor, plain
from .rounds import Spread, in_turn, table
from .servers import Servers
from .stand import Measured, stand

SENDS = 1_000  # in each round


def benchmark(rounds: int) -> Iterator[str]:
    with Servers() as servers, ExitStack() as stack:
        stands = {peer.name: stack.enter_context(stand(servers, peer)) for peer in SENDERS}
        cases = {name: functools.partial(each.send, SENDS) for name, each in stands.items()}
        results = in_turn(cases, rounds)
    yield (
        f"One thread sends {SENDS:,} messages in each of {rounds} rounds: median (least-greatest). Redis keeps nothing on "
        "disk; PostgreSQL, MariaDB and SQLite sync each commit. The floor is one INSERT of the same row in autocommit, by "
        "the bare driver, and one send of plain Dramatiq. CPU in µs per send."
    )
    rates = {name: Spread([each.per_second for each in results[name]]) for name in results}
    rows = []
    for peer in SENDERS:
        name, of_floor = peer.name, floor(peer.database or "postgres").name
        rows.append(
            [
                name,
                rates[name],
                rates[name].over(rates[of_floor]),
                rates[name].over(rates[plain().name]),
                *cpu(results[name]),
            ]
        )
    yield table(
        ["", "per second", "of the floor", "of plain", "CPU, client", "CPU, database"], rows
    )


def cpu(results: list[Measured]) -> list[object]:
    """Of the client and of the database's server, if it has one."""
    servers = [each.database for each in results if each.database is not None]
    return [Spread([each.client for each in results]), Spread(servers) if servers else "-"]
