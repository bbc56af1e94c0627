"""What concerns many is asked about first, and done in batches."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

MANY = 3_000

APP = """
    import os
    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = StubBroker()
    durable = DurableMiddleware(os.environ["SHOP_DATABASE"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor
    def charge(order_id):
        pass
"""


@pytest.fixture
def acting(command, charge, dead, clock):
    """Three dead jobs, old enough to be purged, and three that wait."""
    clock.move(days=15)
    for number in (4, 5, 6):
        charge.send(number)


ACTING = {
    "retry": ["--actor", "charge"],
    "cancel": ["--actor", "charge"],
    "purge": [],
}
PAST = {"retry": "retried", "cancel": "cancelled", "purge": "deleted"}


def everything(printed):
    return printed("list", "--limit", "10000")


@pytest.mark.parametrize("name", ACTING)
def test_what_filters_select_is_confirmed_with_its_number(command, acting, name):
    done = command(name, *ACTING[name], input="y\n")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{PAST[name]} 3")
    assert " 3 " in done.stderr.splitlines()[0]
    assert "?" in done.stderr


@pytest.mark.parametrize(
    ("name", "question"), [("retry", "Retry 1 job?"), ("purge", "Delete 1 finished audit?")]
)
def test_one_is_not_many(command, charge, card, work, clock, name, question):
    card.expired = True
    charge.send(1)
    work()
    clock.move(days=15)
    assert question in command(name, *ACTING[name], input="n\n").stderr


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
@pytest.mark.parametrize("name", ACTING)
def test_a_confirmation_that_is_declined_changes_nothing(command, printed, acting, name, answer):
    before = everything(printed)
    done = command(name, *ACTING[name], input=answer)
    assert done.exit_code == 1
    assert PAST[name] not in done.stdout
    assert everything(printed) == before


@pytest.mark.parametrize("name", ACTING)
def test_with_yes_nothing_is_asked(command, acting, name):
    done = command(name, *ACTING[name], "--yes", input="")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{PAST[name]} 3\n", "")


@pytest.mark.parametrize("name", ACTING)
def test_where_there_is_nothing_to_do_nothing_is_asked(command, charge, name):
    done = command(name, *ACTING[name], input="")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{PAST[name]} 0\n", "")


@pytest.fixture
def shop(app, sqlite_url, acting):
    """A process of its own on the same database, with the clock of the present day."""
    return app(APP, SHOP_DATABASE=sqlite_url)


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_without_a_terminal_and_without_yes_it_refuses_and_says_so(shop, printed, name):
    before = everything(printed)
    done = shop.run(name, "app:broker", *ACTING[name])
    assert done.returncode != 0
    assert done.stdout == ""
    assert "--yes" in done.stderr
    assert everything(printed) == before


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_without_a_terminal_but_with_yes_it_acts(shop, name):
    done = shop.run(name, "app:broker", *ACTING[name], "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{PAST[name]} 3\n", "")


@pytest.fixture
def many(charge, durable, sqlite_db, printed):
    """The ids of 3,000 jobs that wait."""
    charge.send(0)
    fields = [field.name for field in durable.store.audit._meta.sorted_fields[1:]]
    copied = [f"{name} || '-' || i" if name == "message_id" else name for name in fields]
    sqlite_db.execute_sql(
        f"WITH RECURSIVE numbers(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM numbers WHERE i < {MANY})"
        f" INSERT INTO durable_audits ({', '.join(fields)})"
        f" SELECT {', '.join(copied)} FROM durable_audits, numbers"
    )
    ids = [audit["message_id"] for audit in everything(printed)]
    assert len(ids) == MANY
    return ids


@pytest.fixture
def writes(sqlite_db):
    """The statements that change rows, of our stores too, since the fixture was asked for."""
    events = []

    def note(event):
        if event.sql.startswith(("UPDATE", "DELETE")):
            events.append(event)

    sqlite_db.query_hooks.append(note)
    yield events
    sqlite_db.query_hooks.remove(note)


def test_thousands_go_in_batches(command, many, writes, printed, clock):
    assert command("cancel", "--actor", "charge", "--yes").stdout == f"cancelled {MANY}\n"
    assert command("retry", "--actor", "charge", "--yes").stdout == f"retried {MANY}\n"
    assert printed("status")["states"]["pending"] == MANY
    assert command("cancel", *many).stdout == f"cancelled {MANY}\n"
    clock.move(days=2)
    assert command("purge", "--yes").stdout == f"deleted {MANY}\n"
    assert everything(printed) == []
    assert len(writes) >= 4 * 3
    assert max(len(event.params) for event in writes) <= 1_100


def on_a_terminal(shop, *arguments, answer=b""):
    """What ``dramatiq-durable`` writes to a terminal, and its stdout, which is no terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dramatiq_durable", *arguments],
        cwd=shop.folder,
        env={**shop.environment, "TERM": "xterm"},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = []

    def read():
        try:
            while chunk := os.read(controller, 65_536):
                seen.append(chunk)
        except OSError:
            pass  # Linux says so when nobody has the terminal open any more.

    reader = threading.Thread(target=read)
    reader.start()
    os.write(controller, answer)
    stdout, _ = process.communicate(timeout=60)
    reader.join()
    os.close(controller)
    return process.returncode, stdout.decode(), b"".join(seen).decode()


def test_long_work_shows_its_progress_on_a_terminal_and_its_result_on_stdout(app, sqlite_url, many):
    shop = app(APP, SHOP_DATABASE=sqlite_url)
    code, stdout, seen = on_a_terminal(shop, "cancel", "app:broker", "--actor", "charge", "--yes")
    assert (code, stdout) == (0, f"cancelled {MANY}\n")
    assert len(set(re.findall(r"\d+%", seen))) >= 2
    assert "100%" in seen


def test_on_a_terminal_one_is_asked(app, sqlite_url, dead, states):
    shop = app(APP, SHOP_DATABASE=sqlite_url)
    line = ["retry", "app:broker", "--state", "dead"]
    code, stdout, seen = on_a_terminal(shop, *line, answer=b"n\n")
    assert (code, stdout) == (1, "")
    assert "Retry 3 jobs?" in seen
    assert states(dead) == ["dead"] * 3
    code, stdout, seen = on_a_terminal(shop, *line, answer=b"y\n")
    assert (code, stdout) == (0, "retried 3\n")
    assert "%" not in seen
