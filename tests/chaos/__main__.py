"""``python -m tests.chaos [--minutes N] [--seed N] [--lanes N]``: the soak, whose table is in the README."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .report import table
from .trial import SOAK_LANES, Trial, trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--rate", type=float, default=6.0, help="jobs per second in each lane")
    parser.add_argument("--lanes", type=int, default=len(SOAK_LANES))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)

    def run(number: int) -> Trial:
        with tempfile.TemporaryDirectory() as folder:
            return trial(
                SOAK_LANES[number],
                Path(folder),
                options.seed + number,
                seconds=options.minutes * 60,
                rate=options.rate,
                soak=True,
            )

    with ThreadPoolExecutor(options.lanes) as pool:
        trials = list(pool.map(run, range(options.lanes)))
    print(table(trials))
    for each in trials:
        for line in each.report.wrong:
            print(f"{'+'.join(each.kinds)}: {line}")
    return int(any(each.report.wrong for each in trials))


if __name__ == "__main__":
    sys.exit(main())
