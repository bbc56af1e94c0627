"""status: the monitors that were seen."""

import re
from datetime import timedelta

import pytest

from dramatiq_durable.store import Presented


@pytest.fixture
def two_monitors(durable, clock):
    """One that runs, seen half a minute ago, and one that was stopped a minute before."""
    pause = timedelta(seconds=1.5)
    stopped = Presented("1" * 32, "a\x1b[2J", 1, "0.9", pause)
    runs = Presented("2" * 32, "host", 7, "1.2.3", pause, recovered=3, outage=True)
    durable.monitors.say(stopped, timedelta(0))
    durable.monitors.stop(stopped)
    clock.move(minutes=1)
    durable.monitors.say(runs, timedelta(minutes=5))
    clock.move(seconds=30)


@pytest.mark.failure(50)
def test_status_shows_the_monitors_that_were_seen(command, two_monitors):
    _, _, runs, stopped = command("status").stdout.splitlines()
    assert re.fullmatch(r"monitor host:7 \(1\.2\.3, every 1\.5 s\) was seen 0:00:3\d ago", runs)
    assert re.fullmatch(r"monitor a\\x1b\[2J:1 \(0\.9, .*\) stopped 0:01:3\d ago", stopped)


def test_status_in_json_has_the_monitors(printed, two_monitors):
    runs, stopped = printed("status")["monitors"]
    assert runs.pop("seen_seconds_ago") == pytest.approx(30, abs=5)
    assert runs.pop("started_at").endswith("Z")
    assert runs == {
        "id": "2" * 32, "host": "host", "pid": 7, "version": "1.2.3", "interval": 1.5,
        "recovered": 3, "dead": 0, "deleted": 0, "failed": 0, "outage": True, "stopped": False,
    }  # fmt: skip
    assert stopped["stopped"]


@pytest.mark.failure(43)
def test_status_without_the_table_of_monitors_says_the_rest(command, printed, charge, sqlite_db):
    charge.send(1)
    sqlite_db.execute_sql("DROP TABLE durable_monitors")
    sqlite_db.close()
    done = command("status")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("1 pending")
    assert "which monitors run is not known" in done.stdout
    assert printed("status")["monitors"] is None
