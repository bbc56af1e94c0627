"""Send a job for each path on standard input: ``python send.py APP < paths``."""

from __future__ import annotations

import importlib
import sys

app = importlib.import_module(sys.argv[1])
for line in sys.stdin:
    app.compress.send(line.rstrip("\n"))
