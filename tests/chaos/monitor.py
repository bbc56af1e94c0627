"""``python -m tests.chaos.monitor``: the monitor command, in a process that may kill itself."""

from __future__ import annotations

from dramatiq_durable.cli import main

from .settings import INTERVAL

if __name__ == "__main__":
    main(["monitor", "tests.chaos.app:broker", "--interval", f"{int(INTERVAL * 1000)}ms"])
