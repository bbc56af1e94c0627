"""Run lanes of chaos as a program.

    python -m tests.chaos lane redis postgres [--seed N] [--jobs N] [--faults N]
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from . import ledger
from .lane import lane


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("broker")
    parser.add_argument("database")
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--jobs", type=int, default=1_500)
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--every", type=float, default=2.5)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    print(f"lane {args.broker}+{args.database}, seed {args.seed}", flush=True)
    begun = time.monotonic()
    with lane(args.broker, args.database, seed=args.seed, plain=args.plain) as made:
        print(f"{time.monotonic() - begun:.0f} s: servers are up, {made.setting.folder}", flush=True)
        made.run_for(4)
        for _ in range(args.faults):
            made.strike_next()
            made.run_for(args.every)
        while made.promised() < args.jobs:
            made.run_for(0.5)
        print(f"{time.monotonic() - begun:.0f} s: everything is healed", flush=True)
        report = made.finish()
        print(f"{time.monotonic() - begun:.0f} s: everything is done\n{report}", flush=True)
        if not report.ok:
            print(report.evidence(ledger.read(made.setting.path)))
            import shutil
            shutil.copytree(made.setting.folder, "/tmp/chaos-failed", dirs_exist_ok=True, ignore=shutil.ignore_patterns("disk"))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
