"""With a broken transition the checker reports a violation, and in the same scene without it none."""

import pytest
import redis

from . import mutants
from .faults import Fault
from .lane import lane

QUICK = {"job_timeout": 1.5, "backoff": 0.5, "push_lease": 3.0}


@pytest.fixture(params=["", "mutant"])
def play(request):
    """``play(mutant, verdict, scene, ...)``: the *scene* with and without the mutant."""

    def play(mutant, verdict, scene, database="sqlite", **counts):
        broken = bool(request.param)
        setting = {**QUICK, "mutant": mutant.__name__ if broken else "", "counts": counts}
        with lane("redis", database, **setting) as made:
            scene(made)
            report = made.finish()
            print(report)
            wrong = {verdict for verdict, what in report.violations.items() if what}
            assert verdict in wrong if broken else not wrong

    return play


def test_a_completion_without_fence_lets_the_older_of_two_holders_end_the_job(play):
    def scene(made):
        release_older = made.hold("worker.claim-after")
        made.send("quick")
        made.wait_until_held("worker.claim-after")
        release_newer = made.hold("worker.effect-before")
        made.wait_until_held("worker.effect-before")
        release_older()
        # The mutant completes the job, and so the newer one loses its lease.
        made.wait_for(*(["LOST"] if made.setting.mutant else ["LOST", "END"]))
        release_newer()

    play(mutants.complete_without_fence, "usurped", scene, worker=2, monitor=1)


def test_a_mark_without_guard_pushes_twice(play):
    def scene(made):
        made.crew.off("worker")
        release = made.hold("monitor.mark-before")
        made.send("quick")
        made.wait_until_held("monitor.mark-before")
        made.wait_for("PUSH")
        release()
        made.wait_for("HEALED")
        if made.setting.mutant:
            made.wait_for("PUSH", count=2)
        made.run_for(1)
        made.crew.on("worker")

    play(mutants.mark_without_guard, "pushed twice", scene, worker=1, monitor=2)


def test_a_claim_that_ignores_the_epoch_runs_each_copy(play):
    def scene(made):
        made.crew.off("worker")
        made.send("quick")
        # Redis seems to have lost the first copy, until a monitor has sent a second one.
        bodies = "dramatiq:default.msgs"
        with redis.Redis.from_url(made.broker.direct) as client:
            first = client.hgetall(bodies)
            client.delete(bodies)
            made.wait_for("PUSH")
            client.hset(bodies, mapping=first)
        made.crew.on("worker")
        made.wait_for("END")

    play(mutants.claim_ignores_the_epoch, "duplicates unexplained", scene, worker=1, monitor=1)


def test_an_audit_after_the_push_breaks_the_promise_of_an_error(play):
    def scene(made):
        proxy = made.database.proxy

        def go_down():
            proxy.down()
            return proxy.up

        made.strike(Fault("down:database", "database", go_down, 60))
        made.run_for(0.5)
        made.send("quick")
        made.heal_all()
        made.send("quick")
        made.wait_for("END")

    play(
        mutants.audit_after_the_push,
        "unexpected",
        scene,
        database="postgres",
        worker=1,
        monitor=1,
    )
