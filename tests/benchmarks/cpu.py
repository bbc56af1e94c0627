"""How much CPU processes have used."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds


def cpu_seconds(pid: int) -> float:
    """What process *pid* and those that it has started have used so far, those that have ended included."""
    used: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended
        # The name, in parentheses, may hold anything.
        fields = text.rpartition(")")[2].split()
        number = int(path.parent.name)
        children[int(fields[1])].append(number)
        # User and system time, its own and that of the children it has waited for.
        used[number] = sum(map(int, fields[11:15])) * _TICK
    found = [pid]
    for each in found:
        found += children[each]
    return sum(used.get(each, 0.0) for each in found)
