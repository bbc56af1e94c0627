"""Under faults of every kind nothing is lost, nothing is done that nobody sent, nothing twice without a cause."""

import os
import random

import pytest

from .mutants import MUTANTS
from .trial import CI_LANES, scene, trial

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kinds", CI_LANES, ids="+".join)
def test_a_lane_loses_nothing_and_does_nothing_twice_without_a_cause(tmp_path, kinds):
    done = trial(kinds, tmp_path, SEED, seconds=75, rate=22)
    print(done)
    assert done.report.wrong == [], str(done)
    assert done.report.jobs >= 1_500
    assert sum(done.faults.values()) >= 20


def test_the_same_faults_make_plain_dramatiq_lose_jobs(tmp_path):
    report = scene(tmp_path, plain=True)
    assert report.lost


def test_the_same_scene_loses_nothing_with_audits(tmp_path):
    report = scene(tmp_path)
    assert report.wrong == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_transition_is_noticed(tmp_path, mutant):
    report = scene(tmp_path, mutant=mutant)
    assert report.wrong
