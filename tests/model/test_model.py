"""The protocol keeps its promises whatever happens, and protocols that differ in one thing do not."""

import functools
import inspect
import re

import pytest

import dramatiq_durable.store
from dramatiq_durable.models import FINISHED, OPEN
from dramatiq_durable.store.bulk import Bulk
from dramatiq_durable.store.claiming import Claiming
from dramatiq_durable.store.many import Many
from dramatiq_durable.store.monitoring import Monitoring
from dramatiq_durable.store.operating import Operating
from dramatiq_durable.store.sending import Sending
from dramatiq_durable.store.unique import Unique
from dramatiq_durable.store.waiting import Waiting
from dramatiq_durable.store.working import Working

from .mutants import MUTANTS
from .promises import Broken
from .protocol import Protocol
from .search import search
from .spaces import SPACES
from .state import MISSING
from .transitions import TRANSITIONS

#: Worlds; a protocol that breaks promises may have no end of them.
LIMIT = 20_000

#: Names of states in the table of the store.
STATES = {"open": OPEN, "finished": FINISHED, "(none)": (MISSING.state,)}

#: Writes that the model need not have: what no guard reads, a note and a key, and complete() again.
NOT_MODELLED = {"follow", "key_taken", "complete_in"}


@functools.cache
def of_the_protocol(space):
    return search(Protocol(), SPACES[space], limit=LIMIT)


def table_of_the_store():
    """The arrows of each transition, as the docstring of the store lists them."""
    lines = dramatiq_durable.store.__doc__.splitlines()
    [head] = [n for n, line in enumerate(lines) if re.search(r"who\s+transition\s+from → to", line)]
    name_at, arrow_at, guard_at = (lines[head].index(w) for w in ("transition", "from", "guard"))
    table, name = {}, ""
    for line in lines[head + 1 :]:
        if not line.strip():
            break
        name = line[name_at:arrow_at].strip() or name
        before, after = (part.strip() for part in line[arrow_at:guard_at].split("→"))
        [end] = STATES.get(after, (after,))
        starts = [state for part in before.split("|") for state in STATES.get(part, (part,))]
        table.setdefault(name, set()).update((start, end) for start in starts)
    return table


@pytest.mark.parametrize("space", SPACES)
def test_the_protocol_breaks_no_promise(space):
    found = of_the_protocol(space)
    assert not found.broken, f"\n{found}"
    assert not found.cut


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_the_promise_that_it_breaks(name):
    mutant = MUTANTS[name]
    found = search(mutant.protocol(), SPACES[mutant.space], until={mutant.caught_by}, limit=LIMIT)
    caught = mutant.caught_by in found.broken
    assert caught, f"all that was found:\n{found}"


def test_each_promise_is_broken_by_some_mutant():
    assert {mutant.caught_by for mutant in MUTANTS.values()} == set(Broken)


def test_the_shortest_way_to_a_broken_promise_is_told_step_by_step():
    mutant = MUTANTS["PushThenMark"]
    found = search(mutant.protocol(), SPACES[mutant.space], until={mutant.caught_by})
    heading, *steps = found.trace(mutant.caught_by).splitlines()
    assert heading == "PUSHED_TWICE: it was pushed twice in one due period"
    assert [re.split(r"\s{2,}", step.strip())[0] for step in steps] == [
        "1. sender: enqueue",
        "2. time: due_at passes",
        "3. monitor: read a stale audit",
        "4. monitor: push unasked",
        "5. monitor: read a stale audit",
        "6. monitor: push unasked",
    ]


def test_the_transitions_are_those_of_the_store():
    assert table_of_the_store().keys() == TRANSITIONS


#: What renders the statement of a transition that has another name.
RENDERS = {
    "insert": "enqueue",
    "insert_rows": "enqueue",
    "insert_arrays": "enqueue",
    "begin_pushes": "begin_push",
    "all_pushed": "pushed",
    "all_refused": "push_refused",
    "claimed": "claim",
    "completion": "complete",
    "marked": "mark",
    "confirmed": "confirm",
}


def test_each_method_of_the_store_that_writes_is_a_transition():
    methods = {
        name.removeprefix("_"): inspect.getsource(method)
        for part in (Sending, Unique, Bulk, Claiming, Working, Monitoring, Waiting, Many, Operating)
        for name, method in vars(part).items()
        if inspect.isfunction(method)
    }
    writes = re.compile(r"\.(insert|insert_many|insert_from|update|delete)\(|_completion\(")
    writing = {RENDERS.get(name, name) for name, source in methods.items() if writes.search(source)}
    inserts_too = {"adopt"}  # by enqueue
    assert writing - NOT_MODELLED == TRANSITIONS - inserts_too


def test_each_transition_leads_from_where_to_where_the_store_says():
    taken = {}
    for space in SPACES:
        for name, arrows in of_the_protocol(space).arrows.items():
            taken.setdefault(name, set()).update(arrows)
    for name, arrows in table_of_the_store().items():
        assert (name, taken.get(name)) == (name, arrows)
