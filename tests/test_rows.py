"""Each row of the lists in README.md has a test that is marked with it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
README = (TESTS / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+[a-z]?) \|", re.MULTILINE)
HEADINGS = {"failure": "## Failures", "parity": "## Parity with resque-durable"}


def rows(marker):
    section = README.partition(HEADINGS[marker])[2].partition("\n## ")[0]
    return set(ROW.findall(section))


def marked(marker):
    used = re.compile(rf'pytest\.mark\.{marker}\("?(\d+[a-z]?)"?\)')
    return {row for file in TESTS.rglob("test_*.py") for row in used.findall(file.read_text())}


@pytest.mark.parametrize("marker", HEADINGS)
def test_each_row_has_a_test(marker):
    assert rows(marker) - marked(marker) == set()
    assert len(rows(marker)) > 30
