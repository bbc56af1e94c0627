"""How many messages per second one thread can send, when it sends very many at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack

from .peers import BULK_SENDERS, plain
from .rounds import Spread, in_turn, table
from .send import cpu
from .servers import Servers
from .stand import stand

SENT = 10_000  # in each round


def benchmark(rounds: int) -> Iterator[str]:
    with Servers() as servers, ExitStack() as stack:
        stands = {peer.name: stack.enter_context(stand(servers, peer)) for peer in BULK_SENDERS}
        cases = {name: functools.partial(each.send_many, SENT) for name, each in stands.items()}
        results = in_turn(cases, rounds)
    yield (
        f"One thread sends {SENT:,} messages at once in each of {rounds} rounds: median (least-greatest). For plain Dramatiq, "
        "which has nothing of the kind, they are collected to one round trip for 64. CPU in µs per message."
    )
    rates = {name: Spread([each.per_second for each in results[name]]) for name in results}
    rows = [
        [name, rate, rate.over(rates[plain().name]), *cpu(results[name])]
        for name, rate in rates.items()
    ]
    yield table(["", "per second", "of plain", "CPU, client", "CPU, database"], rows)
