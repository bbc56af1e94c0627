"""What may be imported, exactly."""

import importlib.resources
import subprocess
import sys
import types

import peewee
import pytest
from dramatiq.middleware import Interrupt, Middleware, MiddlewareError, SkipMessage

import dramatiq_durable

NAMES = {
    "DurableMiddleware",
    "durable_actor",
    "RequeueImmediately",
    "current_audit",
    "Monitor",
    "Audit",
    "DurableError",
    "AuditWriteFailed",
    "LeaseLost",
    "cubic_backoff",
}


def test_the_public_names_are_those_of_the_design():
    assert set(dramatiq_durable.__all__) == NAMES
    public = {
        name
        for name, value in vars(dramatiq_durable).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == NAMES


def test_a_star_import_brings_them_and_nothing_else():
    namespace = {}
    exec("from dramatiq_durable import *", namespace)  # noqa: S102
    assert namespace.keys() - {"__builtins__"} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_says_what_it_is(name):
    assert getattr(dramatiq_durable, name).__doc__.strip()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("DurableMiddleware", Middleware),
        ("Audit", peewee.Model),
        ("DurableError", MiddlewareError),
        ("AuditWriteFailed", dramatiq_durable.DurableError),
        ("LeaseLost", Interrupt),
        ("RequeueImmediately", SkipMessage),
    ],
)
def test_each_belongs_to_the_family_that_dramatiq_expects(name, family):
    assert issubclass(getattr(dramatiq_durable, name), family)


def test_nobody_catches_a_lost_lease_with_except_exception():
    assert not issubclass(dramatiq_durable.LeaseLost, Exception)


def test_outside_of_a_durable_job_there_is_no_current_audit():
    assert dramatiq_durable.current_audit() is None


def test_its_types_are_for_others_too():
    assert importlib.resources.files("dramatiq_durable").joinpath("py.typed").is_file()


def test_it_is_imported_without_the_drivers_and_brokers_that_are_optional():
    code = (
        "import sys\n"
        "for name in ('psycopg', 'psycopg2', 'pymysql', 'MySQLdb', 'pika', 'gevent', 'django', 'sqlalchemy'):\n"
        "    sys.modules[name] = None\n"
        "import dramatiq_durable, dramatiq_durable.cli\n"
        "durable = dramatiq_durable.DurableMiddleware('sqlite:///:memory:')\n"
        "durable.create_tables()\n"
        "print(dramatiq_durable.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("dramatiq_durable\n", "")


def test_importing_it_makes_no_broker():
    code = (
        "import dramatiq.broker\n"
        "import dramatiq_durable, dramatiq_durable.cli\n"
        "print(dramatiq.broker.global_broker)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("None\n", "")
