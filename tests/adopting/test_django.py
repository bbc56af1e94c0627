"""Django's connections, in its own ways."""

import unittest

import pytest
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import Client, TestCase, override_settings
from django.urls import path

from dramatiq_durable import DurableError

from .conftest import Changed

pytestmark = pytest.mark.parametrize("way", ["django-sqlite", "django-postgres", "django-mariadb"])

NOT_OPEN = "no transaction is open on Django's connection 'default'"


def answer(request):
    return views[0](request)


urlpatterns = [path("", answer)]
views = []


@pytest.fixture
def get():
    """``get(view)``: what Django makes of a request that *view* answers."""

    def get(view):
        views[:] = [view]
        with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"], MIDDLEWARE=[]):
            return Client(raise_request_exception=False).get("/").status_code

    return get


@pytest.mark.parametrize(
    "named",
    [lambda: connection, lambda: connections["default"], lambda: "default"],
    ids=["connection", "connections", "alias"],
)
def test_a_connection_has_several_names(shop, durable, charge, ran, waiting, work, named):
    with transaction.atomic(durable=True):
        with durable.transaction(named()):
            charge.send(1)
        assert waiting() == 0
    work()
    assert ran == [1]


def test_outside_of_atomic_it_is_refused(shop, durable, charge, waiting):
    with pytest.raises(ValueError, match=NOT_OPEN):
        durable.transaction(connection).__enter__()
    with transaction.atomic():
        block = durable.transaction(connection)
        block.__enter__()
    with pytest.raises(DurableError, match=NOT_OPEN):
        charge.send(1)
    with pytest.raises(DurableError, match=NOT_OPEN):
        charge.send_many([(1,)])
    block.__exit__(None, None, None)
    assert waiting() == 0


def test_transactions_that_are_managed_by_hand_are_refused(shop, durable):
    transaction.set_autocommit(False)
    shop.execute("INSERT INTO orders (id) VALUES (1)")
    with pytest.raises(ValueError, match=NOT_OPEN):
        durable.transaction(connection).__enter__()
    transaction.rollback()
    transaction.set_autocommit(True)


def test_an_sqlalchemy_of_long_ago_beside_it_does_no_harm(
    shop, durable, charge, waiting, monkeypatch
):
    monkeypatch.delattr("sqlalchemy.Connection")  # which it has since 2.0
    with transaction.atomic(), durable.transaction(connection):
        charge.send(1)
    assert waiting() == 1


def test_an_alias_that_is_none_is_refused(shop, durable):
    with pytest.raises(ValueError, match="Django has no database 'elsewhere'"):
        durable.transaction("elsewhere").__enter__()


@pytest.mark.failure(5)
def test_a_request_that_is_a_transaction_commits_it(
    shop, durable, charge, orders, ran, waiting, finish, get
):
    connection.settings_dict["ATOMIC_REQUESTS"] = True

    def place(request):
        with durable.transaction(connection):
            shop.execute("INSERT INTO orders (id) VALUES (1)")
            charge.send(1)
        assert waiting() == 0
        return HttpResponse()

    def fail(request):
        with durable.transaction(connection):
            charge.send(2)
        raise Changed

    def give_up(request):
        with durable.transaction(connection):
            charge.send(3)
        transaction.set_rollback(True)
        return HttpResponse()

    assert get(place) == 200
    assert waiting() == 1
    assert get(fail) == 500
    assert get(give_up) == 200
    finish()
    assert ran == [1]
    assert orders() == [1]


def test_after_an_error_in_a_hook_of_the_applications_a_monitor_sends_it(
    shop, durable, charge, ran, waiting, work, clock, monitor
):
    def fail():
        raise Changed

    with pytest.raises(Changed), transaction.atomic():
        transaction.on_commit(fail)
        with durable.transaction(connection):
            charge.send(1)
    assert waiting() == 0
    clock.move(seconds=60)
    monitor.run_once()
    work()
    assert ran == [1]


def test_what_is_sent_is_in_no_list_of_queries(shop, durable, charge):
    connection.force_debug_cursor = True
    with transaction.atomic(), durable.transaction(connection):
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        charge.send("an argument")
    assert "orders" in str(connection.queries)
    assert "an argument" not in str(connection.queries)


def run_case(body):
    """Run *body* as the test of a TestCase, whose transaction is never committed."""

    class Case(TestCase):  # type: ignore[misc]
        def test(self):
            body(self)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert not result.errors + result.failures, result
    assert result.testsRun == 1


def test_in_a_test_case_nothing_is_committed(shop, durable, charge, waiting, audits):
    def body(case):
        with (
            case.captureOnCommitCallbacks() as callbacks,
            transaction.atomic(),
            durable.transaction(connection),
        ):
            charge.send(1)
        assert len(callbacks) == 1

    run_case(body)
    assert waiting() == 0
    assert audits(durable) == []


def test_a_test_case_may_pretend_the_commit(shop, durable, charge, waiting, audits, caplog):
    def body(case):
        with (
            case.captureOnCommitCallbacks(execute=True),
            transaction.atomic(),
            durable.transaction(connection),
        ):
            charge.send(1)
            charge.send_many([(2,), (3,)])
            with pytest.raises(Changed), transaction.atomic():
                charge.send("rolled back")
                raise Changed
        assert waiting() == 3

    run_case(body)
    assert audits(durable) == []
    assert "left to the monitor" not in caplog.text
