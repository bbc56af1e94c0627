"""What plain Dramatiq loses: it proves that the checker sees losses."""

import pytest

from .faults import forget
from .lane import lane


@pytest.mark.parametrize(("plain", "lost"), [(True, 20), (False, 0)])
def test_plain_dramatiq_loses_what_the_broker_forgets(plain, lost):
    counts = {"worker": 1, "monitor": 0 if plain else 1}
    setting = {"job_timeout": 1.5, "backoff": 0.5, "plain": plain, "counts": counts}
    with lane("redis", "sqlite", **setting) as made:
        made.plain_quiet = 2
        made.crew.off("worker")
        made.send(*["quick"] * 20)
        made.strike(forget(made))
        made.crew.on("worker")
        made.send("quick")
        made.wait_for("END")
        report = made.finish()
    print(report)
    assert report.promised == 21
    assert report.count("lost") == lost
    assert report.ok is not plain
