"""Three lanes side by side: each loses nothing, and doubles nothing without a cause."""

import faulthandler

import pytest

from . import side_by_side

LANES = [("redis", "postgres"), ("rabbitmq", "mariadb"), ("redis", "sqlite")]

DRAWS, JOBS, FAULTS = 36, 1_500, 20

TIMEOUT = 360  # seconds, on a busy machine


@pytest.mark.timeout(TIMEOUT + 60)
def test_no_lane_loses_a_job_or_doubles_one_without_a_cause():
    faulthandler.cancel_dump_traceback_later()  # it takes longer than other tests
    options = ["--draws", str(DRAWS), "--jobs", str(JOBS)]
    results = side_by_side.run([[*lane, *options] for lane in LANES], TIMEOUT)
    for result in results:
        print(result.output)
    assert [result.returncode for result in results] == [0, 0, 0]
    for result in results:
        assert result.summary["promised"] >= JOBS
        assert sum(result.summary["faults"].values()) >= FAULTS
