"""How many jobs per second a worker does, of those that wait already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .peers import WORKERS
from .peers.peer import Peer
from .rounds import Spread, in_turn, table
from .send import cpu
from .servers import Servers
from .stand import Stand, stand

QUICKLY = {"PGOPTIONS": "-c synchronous_commit=off"}


def benchmark(rounds: int) -> Iterator[str]:
    with Servers() as servers, ExitStack() as stack:
        stands = [stack.enter_context(loading(servers, peer)) for peer in WORKERS]
        # Each run starts a worker anew, so that none is warmer than another.
        results = in_turn({each.peer.name: each.work for each in stands}, rounds, warm_up=False)
    yield (
        f"One process of 8 threads, median (least-greatest) of {rounds} rounds: jobs that do nothing and wait already, from "
        "the first one's start until the last one is done, and recorded as done where that is recorded. Compared with plain "
        "Dramatiq at the same prefetch. CPU in µs per job."
    )
    rates = {name: Spread([each.per_second for each in results[name]]) for name in results}
    rows = [
        [
            peer.name,
            f"{peer.jobs:,}",
            rates[peer.name],
            rates[peer.name].over(rates[peer.beside]),
            *cpu(results[peer.name]),
        ]
        for peer in WORKERS
    ]
    yield table(["", "jobs", "per second", "of plain", "CPU, worker", "CPU, database"], rows)


@contextmanager
def loading(servers: Servers, peer: Peer) -> Iterator[Stand]:
    """A stand whose sender does not wait for the disk: what it sends is not measured."""
    with stand(servers, peer, **QUICKLY) as made:
        made.sender.do("load", 0)
        for name in QUICKLY:
            made.app.environment.pop(name)
        yield made
