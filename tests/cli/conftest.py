"""The command in this process, on the test's own broker; or in a process of its own."""

import functools
import json
import types
import uuid
from datetime import timedelta

import pytest

from dramatiq_durable import durable_actor
from dramatiq_durable.store import Presented
from tests.support.commands import command_for


@pytest.fixture
def durable(stub_broker, sqlite_db, make_durable):
    return make_durable(stub_broker, sqlite_db)


@pytest.fixture
def command_on(monkeypatch):
    """``command_on(broker)``: see :func:`command_for`."""
    return functools.partial(command_for, monkeypatch)


@pytest.fixture
def command(durable, stub_broker, command_on):
    """The command on the test's broker."""
    return command_on(stub_broker)


@pytest.fixture
def printed(command):
    """``printed("list", …)``: what the command prints as JSON, parsed."""

    def run(*args):
        result = command(*args, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run


class Final(Exception):
    """What actors raise when there is no point in another try."""


@pytest.fixture
def ran():
    """What the jobs of *charge* were about, in the order of their runs."""
    return []


@pytest.fixture
def card():
    """What *charge* charges; ``card.expired = True`` makes its jobs dead."""
    return types.SimpleNamespace(expired=False)


@pytest.fixture
def charge(durable, ran, card):
    """A durable actor."""

    @durable_actor(throws=Final)
    def charge(order_id):
        ran.append(order_id)
        if card.expired:
            raise Final("the card has expired")

    return charge


@pytest.fixture
def mail(durable):
    """A durable actor on a queue of its own."""

    @durable_actor(queue_name="mails")
    def mail(address):
        pass

    return mail


@pytest.fixture
def dead(charge, card, work, ran):
    """The ids of three dead jobs, about 1, 2 and 3, whose next run will succeed."""
    card.expired = True
    ids = [charge.send(number).message_id for number in (1, 2, 3)]
    work()
    card.expired = False
    ran.clear()
    return ids


@pytest.fixture
def states(durable):
    """``states(ids)``: the state of each audit; None where there is none."""

    def of(ids):
        found = [durable.store.get(each) for each in ids]
        return [None if audit is None else audit.state for audit in found]

    return of


@pytest.fixture
def seen(durable):
    """``seen(interval=1, …)``: a monitor says that it is there; what it says is returned."""

    def say(interval=1, of=durable, **changes):
        pause = timedelta(seconds=interval)
        monitor = Presented(uuid.uuid4().hex, "host", 7, "1.2.3", pause, **changes)
        of.monitors.say(monitor, timedelta(0))
        return monitor

    return say
