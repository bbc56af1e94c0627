"""The rights that the README names for each role are enough, and all of them are needed."""

import re
from contextlib import nullcontext
from pathlib import Path

import dramatiq
import peewee
import pytest

from dramatiq_durable import DurableError, Monitor

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GRANTS = re.findall(r"`GRANT ([^`]+) TO app`", README)


def rights_in(text):
    """``SELECT``, ``SELECT ON durable_monitors``: what a row of the README's table names."""
    audits, _, others = text.partition(";")
    monitors = others if "durable_monitors" in others else ""
    verbs = "SELECT|INSERT|UPDATE|DELETE"
    return [
        *re.findall(verbs, audits),
        *(f"{verb} ON durable_monitors" for verb in re.findall(verbs, monitors)),
    ]


RIGHTS = {
    role: rights_in(rights)
    for role, rights in re.findall(r"^\| (.+) \| (SELECT.*) \|$", README, re.MULTILINE)
}

pytestmark = [
    pytest.mark.failure(53),
    pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True),
]


def send_with_a_key_twice(job, durable, owned):
    """In a transaction, too; and again when the job that has the key is cancelled."""
    for within in (nullcontext(), durable.database.atomic()):
        with within:
            [once] = {job.send_with_options(args=(1,), unique_key="k").message_id for _ in "12"}
        assert list(owned.store.cancel([once])) == [1]


@pytest.fixture
def roles(owner, of_app, work, clock, command_on, audits, caplog):
    """What each role does, with the rights of ``app``; it raises when something is not done."""
    broker, durable, job, _ran = of_app
    _, owned, owners_job, _ = owner

    def states():
        return {audit.message_id: audit.state for audit in audits(owned)}

    def sender():
        message = job.send("now")
        broker.enqueue(message.copy(options={}))
        job.send("full")
        with durable.database.atomic():
            job.send("later")
        with pytest.raises(dramatiq.middleware.MiddlewareError):
            job.send("refused")
        found = audits(owned)
        assert [audit.state for audit in found] == ["pending"] * 3
        assert found[1].enqueue_count == 0
        send_with_a_key_twice(job, durable, owned)

    def worker():
        whats = ("run", "fail", "dead", "requeue", "transaction", "adopt")
        sent = {what: owners_job.send(what) for what in whats}
        owned.database.execute_sql(
            f"DELETE FROM durable_audits WHERE message_id = '{sent['adopt'].message_id}'"
        )
        for message in sent.values():
            broker.queues["default"].put(message.encode())
        work(broker)
        ended = {what: states().get(message.message_id) for what, message in sent.items()}
        assert ended == {
            "run": "completed",
            "fail": "pending",
            "dead": "dead",
            "requeue": "pending",
            "transaction": "completed",
            "adopt": "completed",
        }

    def monitor():
        for what in ("stale", "also stale"):
            owners_job.send(what)
        clock.move(hours=1)
        done = (watcher := Monitor(broker)).run_once()
        assert done.recovered == 2
        watcher.liveness.passed(done)
        assert len(owned.monitors.seen()) == 1
        assert "has trouble to show" not in caplog.text
        clock.move(days=4)
        assert Monitor(broker).run_once().dead == 2
        clock.move(days=20)
        assert Monitor(broker).run_once().deleted == 2

    def run(*words):
        done = command_on(broker)(*words)
        assert done.exit_code == 0, done.output

    def looking():
        message_id = owners_job.send("look").message_id
        for words in (
            ("status",), ("list",), ("show", message_id, "--arguments"), ("schema check",),
            ("doctor", "--skip", "monitor", "--skip", "options"),
        ):  # fmt: skip
            run(*words)

    def acting():
        message_id = owners_job.send("act").message_id
        for name in ("cancel", "retry"):
            run(name, message_id)

    def purge():
        assert list(owned.store.cancel([owners_job.send("old").message_id])) == [1]
        clock.move(days=2)
        run("purge", "--yes")
        assert audits(owned) == []

    return {
        "sender": sender,
        "worker": worker,
        "monitor": monitor,
        "`status`, `doctor`, `list`, `show`, `schema check`": looking,
        "`retry`, `cancel`": acting,
        "`purge`": purge,
    }


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_works_with_its_rights(roles, grant, role):
    assert RIGHTS.keys() == roles.keys()
    for right in RIGHTS[role]:
        grant(right)
    roles[role]()


@pytest.mark.parametrize(
    ("role", "missing"), [(role, right) for role, rights in RIGHTS.items() for right in rights]
)
def test_a_role_does_not_work_without_one_of_its_rights(roles, grant, role, missing):
    for right in RIGHTS[role]:
        if right != missing:
            grant(right)
    with pytest.raises((AssertionError, DurableError, peewee.PeeweeException)):
        roles[role]()


def test_with_what_the_readme_grants_to_an_application_all_roles_work(
    roles, grant, owner, database_url
):
    assert len(GRANTS) == 3
    for right in GRANTS[: 3 if "postgres" in database_url else 2]:
        grant(right)
    for act in roles.values():
        act()
        owner[1].database.execute_sql("DELETE FROM durable_audits")
