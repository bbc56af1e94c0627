"""Each Python block of the README runs, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A block that can't run here says why, in a comment before it: <!-- not run: reason -->
BLOCK = re.compile(
    r"^(?P<skipped><!-- not run: .+ -->\n+)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if found["skipped"] is None:
            line = text.count("\n", 0, found.start("code"))
            # The lines before it make the traceback show the line of the README.
            yield pytest.param("\n" * line + found["code"], id=f"line-{line + 1}")


@pytest.mark.parametrize("code", list(blocks()))
def test_a_block_of_the_readme_runs(code, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DRAMATIQ_DURABLE_DATABASE_URL": "sqlite:///readme.db",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
