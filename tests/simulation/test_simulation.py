"""Thousands of interleavings and faults, each replayed by its seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from . import mutants
from .world import World, simulate

SEEDS, CHUNK = 5_000, 100
MUTANT_SEEDS = 2_000  # within which each mutant has to be found

#: ``DURABLE_SIMULATION_SEED=4711 pytest tests/simulation`` runs that seed alone.
GIVEN = os.environ.get("DURABLE_SIMULATION_SEED")
CHUNKS = (
    [range(int(GIVEN), int(GIVEN) + 1)]
    if GIVEN
    else [range(first, first + CHUNK) for first in range(0, SEEDS, CHUNK)]
)


def _story(seed: int, world: World) -> str:
    command = f"python -m tests.simulation {seed}"
    return "\n".join([*world.violations, f"{command} prints this:", *world.trace.lines()])


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: str(seeds.start))
def test_no_seed_breaks_a_promise(seeds):
    for seed in seeds:
        world = simulate(seed)
        assert not world.violations, _story(seed, world)


def test_the_same_seed_makes_the_same_story():
    for seed in range(100):
        assert simulate(seed).trace.lines() == simulate(seed).trace.lines()


def test_another_process_tells_the_same_story():
    seed = "77"
    printed = subprocess.run(
        [sys.executable, "-m", "tests.simulation", seed], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines() == simulate(int(seed)).trace.lines()


def test_seeds_tell_of_every_kind_of_fault_and_of_every_end():
    story = "\n".join(line for seed in range(300) for line in simulate(seed).trace.lines())
    faults = ("crash", "pause", "jump", "flush", "stop", "outage")
    answers = ("refused", "answer lost", "swallowed", "doubled")
    assert [each for each in (*faults, *answers) if f"*** {each}" not in story] == []
    ends = ("update completed", "update dead", "update cancelled", "rollback", "commit")
    assert [each for each in ends if each not in story] == []


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_broken_transition_is_noticed(name):
    with mutants.installed(name):
        first = mutants.MUTANTS[name][2]
        assert any(simulate(seed).violations for seed in range(first, first + MUTANT_SEEDS))
