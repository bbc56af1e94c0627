"""Run the same jobs with and without dramatiq-durable, and break both half-way.

Exit code 0: every durable job is done and its digest is right.
"""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from screen import Screen, bar, table
from side import DurableSide, Side
from work import digest, real_files

FEWEST_FILES = 500
DEADLINE = 90  # seconds
POLL = 0.05  # seconds
LOG_LINES = 20


def main() -> int:
    files = real_files()
    if len(files) < FEWEST_FILES:
        print(f"only {len(files)} library sources here, {FEWEST_FILES} are needed", file=sys.stderr)
        return 2
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, leave)
    with TemporaryDirectory(prefix="durable-demo-") as name, ExitStack() as stack:
        folder = Path(name)
        plain = Side("plain", folder, stack)
        durable = DurableSide("durable", folder, stack)
        try:
            missing = demo(files, plain, durable)
        except Exception:
            print_logs(folder)
            raise
        if missing:
            print_logs(folder)
    return 1 if missing else 0


def leave(signum: int, _: object) -> NoReturn:
    """Leave by an exception, so that all processes are stopped on the way."""
    sys.exit(128 + signum)


def demo(files: list[str], plain: Side, durable: DurableSide) -> list[str]:
    """Run both sides; returns the files whose durable job is missing or wrong."""
    screen = Screen()
    durable.create_schema()
    durable.start_monitor()
    for side in (plain, durable):
        side.start_sending(files)
    for side in (plain, durable):
        side.wait_until_sent()
    screen.event(f"{len(files)} jobs sent to each side; the workers start")
    plain.start_worker()
    durable.start_worker()
    watch(screen, len(files), plain, durable)
    plain.stop_worker()
    durable.stop_worker()
    durable.stop_monitor()

    screen.event("nothing is left to run; the digests are checked")
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(files, pool.map(digest, files), strict=True))
    missing = wrong(durable, digests)
    right = len(files) - len(missing)
    print("", table({side.name: result(side, digests) for side in (plain, durable)}), "", sep="\n")
    print(f"{right} of {len(files)} durable jobs are done, with the right digest")
    return missing


def watch(screen: Screen, sent: int, plain: Side, durable: DurableSide) -> None:
    """Show how far both sides are, break each half-way, return when nothing is left to run."""
    deadline = time.monotonic() + DEADLINE
    whole = [plain, durable]
    while time.monotonic() < deadline:
        screen.progress("   ".join(bar(side.name, side.done(), sent) for side in (plain, durable)))
        for side in [side for side in whole if side.done() >= sent // 2]:
            side.strike()
            whole.remove(side)
            screen.event(f"{side.name}: {side.done()} done, worker killed, broker wiped")
            side.start_worker()
            if not whole:
                screen.event("new workers run; the monitor acts when job_timeout is over")
        if not whole and plain.over(sent) and durable.over(sent):
            return
        time.sleep(POLL)
    screen.event("the time is up")


def result(side: Side, digests: dict[str, str]) -> dict[str, object]:
    ends = side.ledger().ends
    return {
        "sent": len(digests),
        "done": len(ends),
        "recovered": side.recovered(),
        "lost": len(digests.keys() - ends.keys()),
        "done twice": sum(times > 1 for times in ends.values()),
    }


def wrong(side: Side, digests: dict[str, str]) -> list[str]:
    """The files that the ledger does not name, or names with another digest."""
    written = side.ledger().digests
    return [file for file, right in digests.items() if written.get(file) != {right}]


def print_logs(folder: Path) -> None:
    for log in sorted(folder.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        print(f"--- {log.relative_to(folder)}", *lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
