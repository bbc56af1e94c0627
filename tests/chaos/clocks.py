"""Clocks of hosts that are wrong by five minutes."""

from __future__ import annotations

import random
from pathlib import Path

_LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


def wrong_clock(chance: random.Random) -> dict[str, str]:
    """The environment of a process that has one, or a right one; libfaketime must be installed."""
    offset = chance.choice(["-5m", "", "", "+5m"])
    if not offset or _LIBRARY is None:
        return {}
    return {
        "LD_PRELOAD": str(_LIBRARY),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
