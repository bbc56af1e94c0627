"""``python -m tests.simulation SEED`` prints what happens in that simulation."""

from __future__ import annotations

import sys

from .world import simulate


def main(seed: str) -> int:
    world = simulate(int(seed))
    print("\n".join(world.trace.lines()))
    return 1 if world.violations else 0


sys.exit(main(*sys.argv[1:]))
