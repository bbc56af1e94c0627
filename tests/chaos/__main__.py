"""Chaos as a program: one lane, or a soak of six beside the same faults on plain Dramatiq.

python -m tests.chaos lane redis postgres [--seed SEED] [--plain] ...
python -m tests.chaos soak [--minutes 30] [--seed SEED] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path

from . import running, soak
from .faults import left_out
from .lane import lane
from .running import Plan
from .soak import Soak


def main() -> int:
    # So that what has been started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    args = _parser().parse_args()
    return int(args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("lane", help="run one lane")
    one.set_defaults(run=_lane)
    one.add_argument("broker", choices=["redis", "rabbitmq"])
    one.add_argument("database", choices=["postgres", "mariadb", "sqlite"])
    one.add_argument("--draws", type=int, default=0, help="faults that are tried, at least")
    one.add_argument("--jobs", type=int, default=0, help="jobs that are sent, at least")
    one.add_argument("--minutes", type=float, default=0.0, help="how long, at least")
    one.add_argument("--every", type=float, default=2.5, help="seconds between two faults")
    one.add_argument("--rate", type=float, default=14.0, help="jobs of a producer in a second")
    one.add_argument("--retention", type=float, default=86_400.0, help="seconds")
    one.add_argument("--backlog", type=float, default=5.0, help="seconds that workers are off")
    one.add_argument("--plain", action="store_true", help="plain Dramatiq, without audits")
    one.add_argument("--keep", type=Path, help="copy ledgers and logs of a failure there")
    one.add_argument("--summary", type=Path, help="write the numbers there, as JSON")
    one.add_argument("--seed", default=_any_seed())
    many = commands.add_parser("soak", help="run six lanes, and print a table")
    many.set_defaults(run=_soak)
    minutes = float(os.environ.get("DURABLE_SOAK_MINUTES", "30"))
    many.add_argument("--minutes", type=float, default=minutes)
    many.add_argument("--seed", default=_any_seed())
    many.add_argument("--keep", type=Path, help="copy ledgers and logs of failures there")
    return parser


def _any_seed() -> str:
    return str(random.randrange(10**6))


def _lane(args: argparse.Namespace) -> int:
    print(f"{args.broker}+{args.database}, seed {args.seed}", flush=True)
    plan = Plan(args.draws, args.jobs, args.minutes, args.every)
    options = {"rate": args.rate, "retention": args.retention, "plain": args.plain}
    with lane(args.broker, args.database, seed=args.seed, **options) as made:
        print(f"left out: {'; '.join(left_out(made))}", flush=True)
        made.backlog = (args.backlog * 2 / 3, args.backlog)
        report = running.run(made, plan)
        print(report, flush=True)
        if not report.ok and not args.plain:
            print(running.evidence(made, report))
            if args.keep:
                running.keep(made, args.keep)
        if args.summary:
            args.summary.write_text(json.dumps(report.summary()))
    return 0 if report.ok else 1


def _soak(args: argparse.Namespace) -> int:
    done = Soak(args.minutes, args.seed, args.keep).run()
    print(soak.table(done))
    return 0 if done.ok else 1


if __name__ == "__main__":
    sys.exit(main())
