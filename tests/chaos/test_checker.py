"""The checker's verdicts on ledgers written by hand."""

import pytest

from .checker import check
from .excuses import Bounds
from .ledger import parse

BOUNDS = Bounds(lease=2, heartbeat=0.5, job_timeout=3, backoff=1, push_lease=5, interval=0.3)

SENT = """
    0.0 p CALL j quick 0
    0.1 p OK j
"""
RAN = """
    1.0 w START j 1
    1.1 w EFFECT j 1
    1.2 w END j 1
"""
RAN_AGAIN = """
    6.0 v START j 3
    6.1 v EFFECT j 3
    6.2 v END j 3
"""
BEGAN = """
    1.0 w START j 1
"""
REPLACED = """
    4.0 v START j 3
    4.1 v EFFECT j 3
    4.2 v END j 3
"""


def report_on(*parts, bounds=BOUNDS, left_open=()):
    events = []
    for line in "".join(parts).split("\n"):
        if line.strip():
            at, process, rest = line.split(maxsplit=2)
            events.append(parse(f"{at} {rest}", process))
    return check(events, bounds, left_open)


def violations(*parts, **options):
    found = report_on(*parts, **options).violations
    return {verdict: what for verdict, what in found.items() if what}


def explained(*parts, **options):
    report = report_on(*parts, **options)
    assert report.ok, report.violations
    return dict(report.explained)


def test_a_job_that_was_sent_and_ran_is_right():
    report = report_on(SENT, RAN)
    assert report.ok
    assert (report.promised, report.faults, report.pushes) == (1, 0, 0)
    assert not report.explained


# Promises


def test_a_promised_job_without_an_effect_is_lost():
    assert violations(SENT) == {"lost": ["j"]}
    assert violations(SENT, "1 w START j 1\n 1.1 w FAIL j 1") == {"lost": ["j"], "usurped": ["j"]}


@pytest.mark.parametrize("effect", ["", RAN])
def test_a_job_whose_producer_died_may_run_or_not(effect):
    assert report_on("0 p CALL j quick 0\n", effect).ok


@pytest.mark.parametrize("sent", ["", "0 p CALL j quick 0\n 0.1 p ROLLBACK j"])
def test_a_job_that_nobody_sent_is_unexpected(sent):
    assert violations(sent, RAN) == {"unexpected": ["j"]}


REFUSED = """
    0.0 p CALL j quick 0
    0.1 p ERR j AuditWriteFailed
"""


def test_a_job_whose_send_raised_is_unexpected():
    assert report_on(REFUSED).ok
    assert violations(REFUSED, RAN) == {"unexpected": ["j"]}


@pytest.mark.parametrize("name", ["cut:database", "down:database", "kill:database"])
def test_it_may_run_when_the_database_went_away_while_it_was_sent(name):
    assert report_on(REFUSED, RAN, f"0.05 i FAULT 1 {name} database\n 0.5 i HEALED 1").ok


@pytest.mark.parametrize("name", ["down:database", "kill:database"])
def test_it_is_unexpected_when_the_database_was_away_all_the_time(name):
    away = f"-1 i FAULT 1 {name} database\n 0.5 i HEALED 1"
    assert violations(REFUSED, RAN, away) == {"unexpected": ["j"]}


def test_it_is_unexpected_when_only_the_broker_was_broken():
    broken = "0.05 i FAULT 1 cut:broker broker"
    assert violations(REFUSED, RAN, broken) == {"unexpected": ["j"]}


def test_a_send_must_raise_nothing_else():
    refused = "0 p CALL j quick 0\n 0.1 p ERR j ConnectionError"
    assert violations(refused) == {"refused": ["j"]}


# Duplicates


def test_a_second_effect_without_a_reason_is_unexplained():
    assert violations(SENT, RAN, RAN_AGAIN) == {"duplicates unexplained": ["j"]}


def test_two_effects_of_one_run_are_unexplained():
    twice = "1.15 w EFFECT j 1"
    assert violations(SENT, RAN, twice) == {"duplicates unexplained": ["j"]}


@pytest.mark.parametrize("at", [1.15, 2.1])
def test_a_crash_before_the_completion_can_be_written_explains_it(at):
    assert explained(SENT, RAN, RAN_AGAIN, f"{at} i FAULT 1 kill:worker w") == {"crash": 1}


def test_so_does_one_after_a_stall_in_which_it_was_not_written():
    stall, crash = "3.5 w STALL 1.2\n", "3.9 i FAULT 1 kill:worker w\n"
    assert explained(SENT, RAN, RAN_AGAIN, stall, crash) == {"crash": 1}
    assert violations(SENT, RAN, RAN_AGAIN, crash) == {"duplicates unexplained": ["j"]}


def test_a_process_dies_once():
    twice = "1.15 w FAULT w- kill:worker.effect-after w\n 5.0 i FAULT 1 kill:worker w\n"
    assert explained(SENT, RAN, RAN_AGAIN, twice) == {"crash": 1}


@pytest.mark.parametrize("crash", ["3.3 i FAULT 1 kill:worker w", "1.15 i FAULT 1 kill:worker u"])
def test_a_crash_long_after_it_or_of_another_process_does_not(crash):
    assert violations(SENT, RAN, RAN_AGAIN, crash) == {"duplicates unexplained": ["j"]}


def test_a_crash_after_an_outage_in_which_nothing_could_be_completed_explains_it():
    outage = "1.1 i FAULT 1 down:database database\n 1.5 i HEALED 1\n"
    crash = "4 i FAULT 2 kill:worker w\n"
    assert explained(SENT, RAN, RAN_AGAIN, outage, crash) == {"crash": 1}


@pytest.mark.parametrize("kind", ["stop", "hold"])
def test_a_pause_longer_than_the_lease_explains_it(kind):
    pause = f"1.1 i FAULT 1 {kind}:worker w\n 3.5 i HEALED 1"
    assert explained(SENT, RAN, RAN_AGAIN, pause) == {"pause": 1}


@pytest.mark.parametrize(
    "pause",
    [
        "1.1 i FAULT 1 stop:worker w\n 2 i HEALED 1",  # shorter than the lease
        "3.5 i FAULT 1 stop:worker w\n 6 i HEALED 1",  # after the run
        "1.1 i FAULT 1 stop:worker u\n 3.5 i HEALED 1",  # of another process
        "1.1 i FAULT 1 down:broker broker\n 3.5 i HEALED 1",
        "1.1 i FAULT 1 cut:database database",
    ],
)
def test_what_cannot_have_ended_the_lease_does_not(pause):
    assert violations(SENT, RAN, RAN_AGAIN, pause) == {"duplicates unexplained": ["j"]}


def test_an_outage_of_the_database_in_which_the_lease_may_have_ended_explains_it():
    outage = "1.1 i FAULT 1 down:database database\n 2.5 i HEALED 1"
    assert explained(SENT, RAN, RAN_AGAIN, outage) == {"outage": 1}


def test_a_process_that_stood_still_for_reasons_of_its_own_explains_it():
    assert explained(SENT, RAN, RAN_AGAIN, "2 w STALL 1.5") == {"stall": 1}
    assert violations(SENT, RAN, RAN_AGAIN, "2 w STALL 0.5") == {"duplicates unexplained": ["j"]}


def test_nothing_explains_a_second_effect_in_a_transaction():
    sent = SENT.replace("quick", "exact")
    crash = "1.15 i FAULT 1 kill:worker w"
    assert violations(sent, RAN, RAN_AGAIN, crash) == {"duplicates unexplained": ["j"]}


# Runs


def test_two_runs_with_one_token_are_a_violation():
    other = REPLACED.replace("j 3", "j 1")
    crash = "1.15 i FAULT 1 kill:worker w"
    assert violations(SENT, RAN, other, crash) == {"tokens": ["j"]}


STOPPED = "1.1 i FAULT 1 stop:worker w\n 4.5 i HEALED 1\n"


def test_runs_overlap_only_after_a_lease_that_ran_out():
    over = "5 w LOST j 1\n"
    assert report_on(SENT, BEGAN, REPLACED, over, STOPPED).ok
    assert violations(SENT, BEGAN, REPLACED, over) == {"overlap": ["j"]}


def test_a_dead_worker_is_no_overlap():
    assert report_on(SENT, BEGAN, REPLACED, "1.5 i FAULT 1 kill:worker w").ok
    early = violations(SENT, BEGAN, REPLACED, "4.05 i FAULT 1 kill:worker w")
    assert early == {"overlap": ["j"]}


def test_the_older_of_two_holders_must_not_complete_the_job():
    ended = "4.5 w EFFECT j 1\n 4.6 w END j 1\n"
    usurped = "4 v START j 3\n 4.7 v LOST j 3\n"
    assert violations(SENT, BEGAN, ended, usurped, STOPPED) == {"usurped": ["j"]}


def test_an_effect_in_the_database_is_the_end_of_its_job():
    sent = SENT.replace("quick", "exact")
    assert report_on(sent, BEGAN, "1.1 database EFFECT j 1\n 1.2 i FAULT 1 kill:worker w").ok


# Recovery


def test_a_recovery_is_late_when_no_fault_has_made_it_wait():
    bounds = Bounds(job_timeout=3, backoff=1, push_lease=4, interval=0.3, slack=1)
    pushed = "{at} m PUSH j 0 12:00\n {at} v START j 1\n {at} v EFFECT j 1\n {at} v END j 1\n"
    assert report_on(SENT, pushed.format(at=5.3), bounds=bounds).ok
    late = pushed.format(at=5.5)
    assert violations(SENT, late, bounds=bounds) == {"late": ["j"]}
    assert report_on(SENT, late, "3 i FAULT 1 forget:messages broker", bounds=bounds).ok
    assert report_on(SENT.replace("quick 0", "quick 1"), late, bounds=bounds).ok


def test_a_wait_without_a_monitor_is_no_recovery():
    report = report_on(SENT, RAN.replace("1.", "100."))
    assert report.ok
    assert not report.recoveries


@pytest.mark.parametrize(("second", "twice"), [("0 12:00", True), ("0 12:05", False)])
def test_a_job_is_pushed_once_in_a_period(second, twice):
    pushes = f"0.5 m PUSH j 0 12:00\n 0.6 n PUSH j {second}\n"
    assert violations(SENT, RAN, pushes) == ({"pushed twice": ["j"]} if twice else {})


# The end


def test_nothing_is_left_open_and_nobody_ends_by_himself():
    assert violations(SENT, RAN, left_open=["pending x"]) == {"left open": ["pending x"]}
    assert list(violations(SENT, RAN, "2 i EXIT w 1")) == ["ended by itself"]


def test_the_evidence_is_the_lines_of_the_jobs_that_are_wrong():
    parts = (SENT, "0 p CALL k quick 0\n 0 p OK k\n", RAN)
    report = report_on(*parts)
    events = [parse("0.0 CALL j quick 0", "p"), parse("0 CALL k quick 0", "p")]
    assert report.evidence(events) == "lost: k\n0.000 p CALL k quick 0"
