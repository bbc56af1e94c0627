"""status, list and show."""

import re
import threading
from datetime import date

import dramatiq
import pytest
from dramatiq.encoder import PickleEncoder

from dramatiq_durable import durable_actor

SECRET = "4111-1111"


@pytest.fixture
def jobs(charge, card, mail, work, clock):
    """A job of each finished state and two that wait, all an hour old; and a new one."""
    ids = {"completed": charge.send(SECRET).message_id}
    work()
    card.expired = True
    ids["dead"] = charge.send(SECRET).message_id
    work()
    ids["waiting"] = charge.send(SECRET).message_id
    ids["mail"] = mail.send(SECRET).message_id
    clock.move(hours=1)
    ids["new"] = mail.send(SECRET).message_id
    return ids


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def rows(text):
    """The rows of a table as dicts."""
    headings, *lines = map(cells, text.splitlines())
    return [dict(zip(headings, line, strict=False)) for line in lines]


def test_status_counts_by_state_queue_and_actor(command, jobs):
    done = command("status")
    assert (done.exit_code, done.stderr) == (0, "")
    summary, stale, monitors, _, table = done.stdout.split("\n", 4)
    assert summary == "3 pending, 0 running, 1 completed, 1 dead, 0 cancelled"
    assert "2 stale" in stale
    assert monitors == "no monitor was seen"
    assert [list(row.values()) for row in rows(table)] == [
        ["default", "charge", "completed", "1"],
        ["default", "charge", "dead", "1"],
        ["default", "charge", "pending", "1", "1"],
        ["mails", "mail", "pending", "2", "1"],
    ]


def test_status_says_how_long_the_oldest_has_been_stale(command, jobs):
    # job_timeout and the first backoff are 11 minutes together.
    assert "the oldest for 0:49:0" in command("status").stdout


def test_status_without_stale_audits_says_so(command, charge):
    charge.send(1)
    assert "none stale" in command("status").stdout


def test_status_in_json(printed, jobs):
    status = printed("status")
    assert status.pop("oldest_stale_seconds") == pytest.approx(49 * 60, abs=5)
    assert status == {
        "namespace": "dramatiq",
        "states": {"pending": 3, "running": 0, "completed": 1, "dead": 1, "cancelled": 0},
        "stale": 2,
        "actors": [
            {
                "queue_name": queue_name,
                "actor_name": actor_name,
                "state": state,
                "count": count,
                "stale": stale,
            }
            for queue_name, actor_name, state, count, stale in [
                ("default", "charge", "completed", 1, 0),
                ("default", "charge", "dead", 1, 0),
                ("default", "charge", "pending", 1, 1),
                ("mails", "mail", "pending", 2, 1),
            ]
        ],
        "monitors": [],
    }


def test_status_counts_a_job_while_it_runs(command, durable, running_worker):
    started, release = threading.Event(), threading.Event()

    @durable_actor
    def hold():
        started.set()
        release.wait(30)

    hold.send()
    with running_worker():
        assert started.wait(30)
        assert "0 pending, 1 running" in command("status").stdout
        release.set()


def test_list_shows_the_newest_first(command, jobs):
    done = command("list")
    assert (done.exit_code, done.stderr) == (0, "")
    found = rows(done.stdout)
    assert [row["MESSAGE"] for row in found] == [
        jobs[name] for name in ("new", "mail", "waiting", "dead", "completed")
    ]
    assert [row["STATE"] for row in found] == ["pending"] * 3 + ["dead", "completed"]
    assert "Final: the card has expired" in done.stdout


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["--state", "dead"], ["dead"]),
        (["--state", "dead", "--state", "completed"], ["dead", "completed"]),
        (["--state", "running"], []),
        (["--actor", "mail"], ["new", "mail"]),
        (["--actor", "nobody"], []),
        (["--queue", "default"], ["waiting", "dead", "completed"]),
        (["--queue", "mails", "--actor", "charge"], []),
        (["--older-than", "50m"], ["mail", "waiting", "dead", "completed"]),
        (["--older-than", "61m"], []),
        (["--older-than", "0"], ["new", "mail", "waiting", "dead", "completed"]),
        (["--older-than", "3000", "--state", "pending"], ["mail", "waiting"]),
        (["--stale"], ["mail", "waiting"]),
        (["--limit", "2"], ["new", "mail"]),
        (["--limit", "2", "--queue", "default"], ["waiting", "dead"]),
    ],
    ids=" ".join,
)
def test_list_filters(command, printed, jobs, filters, names):
    expected = [jobs[name] for name in names]
    assert [audit["message_id"] for audit in printed("list", *filters)] == expected
    assert [row["MESSAGE"] for row in rows(command("list", *filters).stdout)] == expected


def test_list_shows_fifty_unless_told_otherwise(printed, charge, sqlite_db):
    with sqlite_db.atomic():
        for _ in range(51):
            charge.send(1)
    assert len(printed("list")) == 50
    assert len(printed("list", "--limit", "1000")) == 51


@pytest.mark.parametrize(
    "filters",
    [
        ["--state", "nonsense"],
        ["--limit", "0"],
        ["--limit", "x"],
        ["--limit", "99999999999999999999999"],
        ["--older-than", "soon"],
    ],
    ids=" ".join,
)
def test_filters_that_make_no_sense_are_usage_errors(command, filters):
    done = command("list", *filters)
    assert (done.exit_code, done.stdout) == (2, "")
    assert filters[1] in done.stderr


def test_show_has_everything_but_the_arguments(command, durable, jobs):
    done = command("show", jobs["dead"])
    assert (done.exit_code, done.stderr) == (0, "")
    shown = dict(line.split(None, 1) for line in done.stdout.splitlines() if " " in line.strip())
    names = {field.name for field in durable.store.audit._meta.sorted_fields} - {"payload"}
    assert shown.keys() <= names
    assert {line.split()[0] for line in done.stdout.splitlines()} == names
    assert shown["message_id"] == jobs["dead"]
    assert shown["state"] == "dead"
    assert shown["last_error"] == "Final: the card has expired"
    assert shown["job_timeout"] == "600.0"


def test_show_in_json_has_the_same(command, printed, jobs):
    shown = printed("show", jobs["waiting"])
    assert list(shown) == [
        line.split()[0] for line in command("show", jobs["waiting"]).stdout.splitlines()
    ]
    assert (shown["state"], shown["finished_at"], shown["enqueue_count"]) == ("pending", None, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown["due_at"])


@pytest.mark.failure(49)
def test_arguments_are_shown_only_when_asked_for(command, jobs):
    asked = [
        command("show", jobs["waiting"], "--arguments"),
        command("show", jobs["waiting"], "--arguments", "--json"),
    ]
    assert all(SECRET in done.stdout for done in asked)
    not_asked = [
        command(*line)
        for name in jobs
        for line in (
            ["status"],
            ["status", "--json"],
            ["list"],
            ["list", "--json"],
            ["show", jobs[name]],
            ["show", jobs[name], "--json"],
            ["show", jobs[name], "--verbose"],
        )
    ]
    assert not any(SECRET in done.output for done in not_asked)


def test_arguments_are_shown_with_their_names_and_the_options(printed, mail):
    message = mail.send_with_options(args=("a@b",), kwargs={"subject": "ä"}, max_retries=7)
    shown = printed("show", message.message_id, "--arguments")
    assert shown["args"] == ["a@b"]
    assert shown["kwargs"] == {"subject": "ä"}
    assert shown["options"]["max_retries"] == 7


def test_arguments_that_json_has_no_word_for_are_shown_as_python_writes_them(printed, mail):
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    try:
        message = mail.send(date(2026, 3, 2), [1, None], nested={"until": {date(2026, 3, 2)}})
        shown = printed("show", message.message_id, "--arguments")
    finally:
        dramatiq.set_encoder(before)
    assert shown["args"] == ["datetime.date(2026, 3, 2)", [1, None]]
    assert shown["kwargs"] == {"nested": "{'until': {datetime.date(2026, 3, 2)}}"}


@pytest.mark.failure(49)
def test_the_arguments_of_a_completed_job_are_gone(command, jobs):
    done = command("show", jobs["completed"], "--arguments")
    assert done.exit_code == 0
    assert SECRET not in done.stdout
    assert "blanked at completion" in done.stdout


def test_a_payload_that_cannot_be_decoded_is_shown_as_it_is(command, jobs, sqlite_db):
    sqlite_db.execute_sql("UPDATE durable_audits SET payload = ?", (b"\x1b[2Jnonsense",))
    done = command("show", jobs["dead"], "--arguments")
    assert done.exit_code == 0
    assert "nonsense" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "message_id", ["97e29590-a9fa-4461-9475-94577770ac8e", "no uuid", "%", "'; --"]
)
def test_an_unknown_id_is_one_line_and_exit_code_1(command, jobs, message_id):
    done = command("show", message_id)
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert message_id in line
    assert "`list`" in line
