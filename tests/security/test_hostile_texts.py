"""What an exception, or somebody who sends, says is escaped and cut before it is stored or printed."""

import json
import logging

import dramatiq
import pytest
from click.testing import CliRunner

from dramatiq_durable import Monitor, durable_actor
from dramatiq_durable.cli import main

HOSTILE = (
    "a\x1b[31mred\x07\r\n\ttab\x9b2J\x00\u202eltr\u2066\u200b\ufeff\u2028\ud800\udfff é 🐘 end"
)

pytestmark = pytest.mark.failure(50)


class Final(Exception):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError(HOSTILE)


class Empty(Exception):
    pass


@pytest.fixture
def durable(stub_broker, db, make_durable):
    return make_durable(stub_broker, db)


@pytest.fixture
def fail(durable, caplog):
    """``fail(error, **options)``: a job that raises *error*."""
    # Dramatiq logs it as it is, and pytest-xdist cannot transport the report of a test that has logged it.
    caplog.set_level(logging.CRITICAL, logger="dramatiq")

    def fail(error, **options):
        @durable_actor(**{"max_retries": 0, **options})
        def job():
            raise error

        return job.send()

    return fail


def is_harmless(text):
    return text.isprintable() and text.encode()


@pytest.mark.parametrize("options", [{}, {"throws": Final}], ids=["released", "dead"])
def test_an_exceptions_text_is_stored_as_one_line_without_control_characters(
    fail, work, audit_of, options
):
    message = fail(Final(HOSTILE), **options)
    work()
    audit = audit_of(message)
    assert audit.state == ("dead" if options else "pending")
    assert audit.last_error.startswith("Final: a [31mred")
    assert audit.last_error.endswith("é 🐘 end")
    assert is_harmless(audit.last_error)


def test_an_exceptions_text_of_megabytes_is_cut_at_2000_characters(fail, work, audit_of):
    message = fail(Final("🐘" * 3_000_000))
    work()
    assert audit_of(message).last_error == f"Final: {'🐘' * (2_000 - len('Final: '))}"


@pytest.mark.parametrize("name", ["a\x1b[31m\n\u202e", "A" * 1_000_000])
def test_the_name_of_an_exceptions_class_is_escaped_and_cut_as_well(fail, work, audit_of, name):
    message = fail(type(name, (Exception,), {})("why"))
    work()
    said = audit_of(message).last_error
    assert is_harmless(said)
    assert len(said) <= 2_000


@pytest.mark.parametrize("error", [Mute(), Empty()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("final", [False, True])
def test_an_exception_without_a_text_is_recorded_all_the_same(fail, work, audit_of, error, final):
    message = fail(error, throws=type(error) if final else None)
    work()
    audit = audit_of(message)
    assert (audit.state, audit.failure_count) == (("dead", 0) if final else ("pending", 1))
    assert audit.last_error.startswith(f"{type(error).__name__}: ")
    assert is_harmless(audit.last_error)


def test_what_a_broker_says_of_a_message_is_stored_without_control_characters(
    stub_broker, durable, clock, audits
):
    class Picky(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            raise dramatiq.middleware.MiddlewareError(HOSTILE)

    durable_actor(lambda: None, actor_name="job").send()
    stub_broker.flush_all()
    stub_broker.add_middleware(Picky())
    clock.move(hours=1)
    assert Monitor(stub_broker).run_once().failed == 1
    [audit] = audits(durable)
    assert audit.last_error.startswith("MiddlewareError: a [31mred")
    assert is_harmless(audit.last_error)


@pytest.fixture
def of_another(stub_broker, durable):
    """The id of an audit whose names a sender has chosen that means harm."""
    name = HOSTILE.translate({0: None, 0xD800: None, 0xDFFF: None})
    stub_broker.declare_queue(name)
    job = durable_actor(lambda: None, actor_name=name)
    message = job.message().copy(message_id=f"id {name}", queue_name=name)
    stub_broker.enqueue(message)
    return message.message_id


@pytest.mark.parametrize("line", ["status", "list", "show ID", "show ID --arguments", "cancel ID"])
def test_names_are_escaped_before_they_are_printed(of_another, command_on, stub_broker, line):
    name, *words = line.split()
    words = [of_another if word == "ID" else word for word in words]
    command = command_on(stub_broker)
    done = command(name, *words)
    assert done.exit_code == 0
    assert all(map(is_harmless, filter(None, done.output.splitlines())))
    if name != "cancel":
        assert r"\u202eltr" in done.stdout
        json.loads(command(name, *words, "--json").stdout)
    # A second time it cannot be cancelled, and is named in the error.
    again = command("retry", of_another, "unknown\x1b[31m")
    assert all(map(is_harmless, filter(None, again.output.splitlines())))


@pytest.mark.parametrize("name", ["show", "retry", "cancel"])
def test_an_id_that_is_unknown_is_escaped_before_it_is_printed(
    durable, command_on, stub_broker, name
):
    done = command_on(stub_broker)(name, "\x1b[31mred\u202e")
    [line] = done.stderr.splitlines()[-1:]
    assert done.exit_code == 1
    assert r"\x1b[31mred\u202e" in line
    assert is_harmless(line)


@pytest.mark.parametrize("text", [repr(HOSTILE), "'🐘' * 3_000_000"], ids=["hostile", "long"])
def test_what_an_import_says_is_escaped_and_cut(tmp_path, monkeypatch, text):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shouting.py").write_text(f"raise ValueError({text})")
    done = CliRunner().invoke(main, ["status", "shouting:broker"])
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert "ValueError" in line
    assert is_harmless(line)
    assert len(line) < 6_000
