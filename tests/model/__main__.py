"""Search the model by hand: ``python -m tests.model --help``."""

from __future__ import annotations

import argparse
import sys
import time

from .mutants import MUTANTS
from .promises import Broken
from .protocol import Protocol
from .search import Space, search
from .spaces import SPACES
from .state import Budget


def main() -> int:
    names = "\n  ".join(["", *Budget._fields])
    parser = argparse.ArgumentParser(
        prog="python -m tests.model",
        description="Take every step in every order, and print the shortest way to each broken promise.",
        epilog=f"What may happen, and how often, NAME=COUNT:{names}\n\nspaces: {', '.join(SPACES)}"
        f"\n\nmutants: {', '.join(MUTANTS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("happens", nargs="*", metavar="NAME=COUNT", help="a space of one's own")
    parser.add_argument("--space", choices=SPACES, metavar="SPACE", help="one of the tests' spaces")
    parser.add_argument(
        "--mutant", choices=MUTANTS, metavar="MUTANT", help="instead of the protocol"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--monitors", type=int, default=1)
    parser.add_argument("--transaction", action="store_true", help="send in a transaction")
    parser.add_argument("--depth", type=int, default=1, help="commits that a failover may lose")
    options = parser.parse_args()
    mutant = MUTANTS.get(options.mutant)
    protocol = Protocol() if mutant is None else mutant.protocol()
    if options.happens:
        budget = Budget(**{n: int(c) for n, c in (each.split("=") for each in options.happens)})
        spaces = {
            "of one's own": Space(
                budget,
                processes=options.processes,
                threads=options.threads,
                monitors=options.monitors,
                in_transaction=options.transaction,
                depth=options.depth,
            )
        }
    elif options.space:
        spaces = {options.space: SPACES[options.space]}
    elif mutant is not None:
        spaces = {mutant.space: SPACES[mutant.space]}
    else:
        spaces = SPACES
    # A mutant may have no end of worlds.
    until = set() if mutant is None else {mutant.caught_by}
    broken = [_show(protocol, name, space, until) for name, space in spaces.items()]
    return int(any(broken))


def _show(protocol: Protocol, name: str, space: Space, until: set[Broken]) -> bool:
    began = time.monotonic()
    found = search(protocol, space, until=until)
    seconds = time.monotonic() - began
    print(f"{name}: {len(found.worlds)} worlds, {found.steps} steps, {seconds:.1f} s")
    if found.broken:
        print(f"\n{found}\n")
    return bool(found.broken)


if __name__ == "__main__":
    sys.exit(main())
