"""``python -m tests.benchmarks [NAME ...] [--rounds 5]``: measure, and print Markdown."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable

from . import away, bulk, cleanup, connections, end_to_end, loop, rabbitmq, recover, scale, send
from .rounds import ROUNDS
from .versions import versions

#: Each is given the number of rounds, and yields paragraphs and tables.
BENCHMARKS: dict[str, Callable[[int], Iterable[str]]] = {
    "send": send.benchmark,
    "bulk": bulk.benchmark,
    "rabbitmq": rabbitmq.run,
    "end-to-end": end_to_end.benchmark,
    "away": away.benchmark,
    "loop": loop.benchmark,
    "recover": recover.run,
    "scale": scale.run,
    "cleanup": cleanup.run,
    "connections": connections.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    print(versions(), flush=True)
    for name in given.names or BENCHMARKS:
        began = time.monotonic()
        print(f"\n## {name}", flush=True)
        for text in BENCHMARKS[name](given.rounds):
            print(f"\n{text}", flush=True)
        print(f"\n({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
