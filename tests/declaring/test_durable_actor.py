"""durable_actor is dramatiq.actor with durable=True."""

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO

from dramatiq_durable import DurableMiddleware, current_audit, durable_actor


@pytest.fixture
def ran():
    return []


@pytest.fixture
def completed(durable, work, audits):
    """``completed(actor, …)``: run a message of *actor*; whether it has one audit, which is completed."""

    def check(actor, *args):
        message = actor.send(*args)
        work()
        return [(audit.message_id, audit.state) for audit in audits(durable)] == [
            (message.message_id, "completed")
        ]

    return check


def test_bare(completed, ran):
    @durable_actor
    def charge(order_id):
        ran.append((order_id, current_audit() is not None))

    assert isinstance(charge, dramatiq.Actor)
    assert charge.actor_name == "charge"
    assert completed(charge, 1)
    assert ran == [(1, True)]


def test_with_options_of_dramatiq_and_of_ours(completed, ran):
    @durable_actor(
        actor_name="named", queue_name="slow", priority=7, max_retries=2, job_timeout=60_000
    )
    def charge(order_id):
        ran.append(order_id)

    assert (charge.actor_name, charge.queue_name, charge.priority) == ("named", "slow", 7)
    assert (charge.options["max_retries"], charge.options["job_timeout"]) == (2, 60_000)
    assert completed(charge, 1)
    assert ran == [1]


def test_with_empty_parentheses(completed, ran):
    @durable_actor()
    def charge(order_id):
        ran.append(order_id)

    assert completed(charge, 1)


@pytest.fixture
def asyncio_broker(durable, stub_broker):
    stub_broker.add_middleware(AsyncIO())
    return stub_broker


@pytest.mark.parametrize("options", [None, {"max_retries": 0}])
def test_a_coroutine(asyncio_broker, completed, ran, options):
    async def charge(order_id):
        ran.append((order_id, current_audit() is not None))

    actor = durable_actor(charge) if options is None else durable_actor(**options)(charge)
    assert completed(actor, 1)
    assert ran == [(1, True)]


def test_a_generic_actor(completed, ran):
    class Charge(dramatiq.GenericActor):
        class Meta:
            durable = True
            job_timeout = 60_000

        def perform(self, order_id):
            ran.append((order_id, current_audit() is not None))

    assert completed(Charge, 1)
    assert ran == [(1, True)]


def test_dramatiqs_own_decorator_with_the_option(completed, ran):
    @dramatiq.actor(durable=True)
    def charge(order_id):
        ran.append(order_id)

    assert completed(charge, 1)


class OwnActor(dramatiq.Actor):
    pass


def test_another_class_of_actors(completed, ran):
    @durable_actor(actor_class=OwnActor)
    def charge(order_id):
        ran.append(order_id)

    assert isinstance(charge, OwnActor)
    assert completed(charge, 1)


def test_another_broker(stub_broker, sqlite_db, make_durable, work, audits, ran):
    other = StubBroker()
    durable = make_durable(other, sqlite_db)

    @durable_actor(broker=other)
    def charge(order_id):
        ran.append(order_id)

    assert charge.broker is other
    assert stub_broker.get_declared_actors() == set()
    charge.send(1)
    work(other)
    assert ran == [1]
    assert [audit.state for audit in audits(durable)] == ["completed"]


def test_durable_may_be_taken_back(durable, audits):
    job = durable_actor(actor_name="job", durable=False)(lambda: None)
    job.send()
    assert audits(durable) == []


def test_an_actor_of_dramatiq_is_not_durable(durable, work, audits, ran):
    @dramatiq.actor
    def charge(order_id):
        ran.append((order_id, current_audit()))

    charge.send(1)
    work()
    assert ran == [(1, None)]
    assert audits(durable) == []


def test_the_actors_function_can_be_called_directly(durable, audits):
    @durable_actor
    def double(number):
        assert current_audit() is None
        return 2 * number

    assert double(21) == 42
    assert audits(durable) == []


def test_its_name_and_docstring_are_those_of_the_function(durable):
    @durable_actor
    def charge(order_id):
        """Take the money."""

    assert charge.fn.__name__ == "charge"
    assert charge.fn.__doc__ == "Take the money."


def test_without_the_middleware_it_is_refused(stub_broker):
    with pytest.raises(ValueError, match=r"durable.*middleware"):
        durable_actor(actor_name="job")(lambda: None)


def test_two_middleware_are_refused_when_an_actor_is_declared(stub_broker, sqlite_db):
    stub_broker.add_middleware(DurableMiddleware(sqlite_db))
    stub_broker.add_middleware(DurableMiddleware(sqlite_db))
    with pytest.raises(ValueError, match="two DurableMiddleware"):
        durable_actor(actor_name="job")(lambda: None)
    assert stub_broker.get_declared_actors() == set()


def test_a_second_middleware_is_refused_when_it_is_added_after_an_actor(
    stub_broker, durable, sqlite_db
):
    durable_actor(actor_name="job")(lambda: None)
    with pytest.raises(ValueError, match="two DurableMiddleware"):
        stub_broker.add_middleware(DurableMiddleware(sqlite_db))


def test_a_middleware_belongs_to_one_broker(durable, stub_broker):
    durable_actor(actor_name="job")(lambda: None)
    other = StubBroker()
    other.add_middleware(durable)
    with pytest.raises(ValueError, match="one broker"):
        durable_actor(actor_name="job", broker=other)(lambda: None)
