"""What the commands that act say to programs."""

import json

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry", "--state", "dead", "--yes"), {"retried": 3}),
        (("cancel", "--state", "pending", "--yes"), {"cancelled": 1}),
        (("purge",), {"deleted": 0}),
    ],
)
def test_a_command_that_acts_prints_its_count(command, dead, charge, arguments, said):
    charge.send(42)
    done = command(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == said


@pytest.mark.parametrize("how", ["--once", "--dry-run"])
def test_a_pass_prints_its_counts(command, charge, clock, how):
    charge.send(42)
    clock.move(hours=1)
    done = command("monitor", how, "--json")
    counts = {"recovered": 1, "dead": 0, "deleted": 0, "failed": 0, "held": 0, "outage": False}
    assert json.loads(done.stdout) == counts


def test_a_monitor_that_goes_on_prints_nothing_for_programs(command, charge):
    done = command("monitor", "--json")
    assert done.exit_code == 2
    assert "--once" in done.stderr
