"""Pipelines, groups, callbacks and ``broker.enqueue`` keep the contract of ``send()``."""

import dramatiq
import pytest
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend as StubLimits

from dramatiq_durable import durable_actor


class Changed(Exception):
    """What makes a transaction roll back."""


class Actors:
    """Durable actors that note what they are called with."""

    def __init__(self):
        self.ran = []

        @durable_actor
        def add(a, b):
            self.ran.append(("add", a, b))
            return a + b

        @durable_actor
        def fail():
            self.ran.append(("fail",))
            raise RuntimeError("no luck")

        @durable_actor
        def tell(*args):
            self.ran.append(("tell", *args))

        self.add, self.fail, self.tell = add, fail, tell

    def names(self):
        return [name for name, *_ in self.ran]


@pytest.fixture
def limits(broker):
    broker.add_middleware(GroupCallbacks(StubLimits()))


@pytest.fixture
def actors(durable, limits):
    return Actors()


@pytest.fixture
def completed(durable, audits):
    """How many audits are completed; all of them must be."""

    def count():
        found = audits(durable)
        assert {audit.state for audit in found} <= {"completed"}
        return len(found)

    return count


def test_each_step_of_a_pipeline_has_an_audit(actors, work, completed):
    (actors.add.message(1, 2) | actors.add.message(10) | actors.tell.message()).run()
    work()
    assert actors.ran == [("add", 1, 2), ("add", 10, 3), ("tell", 13)]
    assert completed() == 3


def test_each_member_of_a_group_and_its_callback_have_an_audit(actors, work, completed):
    group = dramatiq.group([actors.add.message(1, 2), actors.add.message(3, 4)])
    group.add_completion_callback(actors.tell.message("all done"))
    group.run()
    work()
    assert sorted(actors.ran) == [("add", 1, 2), ("add", 3, 4), ("tell", "all done")]
    assert completed() == 3


def test_a_group_of_pipelines_calls_back_once(actors, work, completed):
    group = dramatiq.group(
        [
            actors.add.message(1, 2) | actors.add.message(10),
            actors.add.message(3, 4) | actors.add.message(20),
        ]
    )
    group.add_completion_callback(actors.tell.message("all done"))
    group.run()
    work()
    assert actors.names().count("tell") == 1
    assert completed() == 5


def test_callbacks_have_audits(actors, work, completed):
    actors.add.send_with_options(args=(1, 2), on_success="tell")
    work()
    [(name, message, result)] = actors.ran[1:]
    assert (name, message["args"], result) == ("tell", [1, 2], 3)
    assert completed() == 2


def test_a_failure_callback_has_an_audit(actors, work, durable, audits):
    actors.fail.send_with_options(on_failure="tell", max_retries=0)
    work()
    [(name, _, error)] = actors.ran[1:]
    assert (name, error) == ("tell", {"type": "RuntimeError", "message": "no luck"})
    assert {(a.actor_name, a.state) for a in audits(durable)} == {
        ("fail", "pending"),  # the monitor will bring it back
        ("tell", "completed"),
    }


@pytest.mark.failure(7)
def test_a_pipeline_run_twice_runs_once(actors, work, completed):
    pipeline = actors.add.message(1, 2) | actors.tell.message()
    pipeline.run()
    pipeline.run()
    work()
    assert actors.ran == [("add", 1, 2), ("tell", 3)]
    pipeline.run()
    work()
    assert actors.names() == ["add", "tell"]
    assert completed() == 2


def _compositions(actors):
    group = dramatiq.group([actors.add.message(1, 2), actors.add.message(3, 4)])
    group.add_completion_callback(actors.tell.message("all done"))
    return {
        "pipeline": (actors.add.message(1, 2) | actors.tell.message()).run,
        "group": group.run,
        "enqueue": lambda: actors.add.broker.enqueue(actors.add.message(1, 2)),
        "callback": lambda: actors.add.send_with_options(args=(1, 2), on_success="tell"),
    }


@pytest.mark.failure(5)
@pytest.mark.parametrize("broker", ["stub", "redis"], indirect=True)
@pytest.mark.parametrize("composition", ["pipeline", "group", "enqueue", "callback"])
class TestInATransaction:
    def test_it_runs_after_the_commit(
        self, actors, broker, sqlite_db, composition, work, waiting, completed
    ):
        with sqlite_db.atomic():
            _compositions(actors)[composition]()
            assert waiting(broker) == 0
        work()
        assert completed() == len(actors.ran) >= 1

    def test_it_never_runs_after_a_rollback(
        self, actors, durable, sqlite_db, composition, work, monitor, clock, audits
    ):
        with pytest.raises(Changed), sqlite_db.atomic():
            _compositions(actors)[composition]()
            raise Changed
        assert audits(durable) == []
        clock.move(hours=1)
        monitor.run_once()
        work()
        assert actors.ran == []


@pytest.mark.failure(3)
@pytest.mark.parametrize("composition", ["pipeline", "group", "enqueue", "callback"])
def test_it_is_sent_by_the_monitor_when_the_broker_refused_it(
    refusing_broker, sqlite_db, make_durable, composition, work, monitor, audits
):
    durable = make_durable(refusing_broker, sqlite_db)
    refusing_broker.add_middleware(GroupCallbacks(StubLimits()))
    actors = Actors()
    refusing_broker.refuses = lambda message, delay: True
    _compositions(actors)[composition]()

    refusing_broker.refuses = None
    monitor.run_once()
    work()
    assert {audit.state for audit in audits(durable)} == {"completed"}
    assert len(audits(durable)) == len(actors.ran) >= 1


@pytest.mark.failure(9)
@pytest.mark.parametrize("broker", ["stub"], indirect=True)
def test_a_pipeline_whose_later_step_cannot_be_encoded_is_refused(
    actors, durable, broker, waiting, audits
):
    pipeline = actors.add.message(1, 2) | actors.tell.message(object())
    with pytest.raises(TypeError):
        pipeline.run()
    assert audits(durable) == []
    assert waiting(broker) == 0


@pytest.mark.parametrize("broker", ["stub"], indirect=True)
def test_a_pipeline_delays_its_start(actors, broker, waiting, audits, durable):
    (actors.add.message(1, 2) | actors.tell.message()).run(delay=3_600_000)
    assert waiting(broker, "default.DQ") == 1
    [audit] = audits(durable)
    assert (audit.scheduled_at - audit.created_at).total_seconds() == 3600
