"""Lists that ``send_many()`` refuses, and messages that it has sent before."""

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, MiddlewareError

from dramatiq_durable import Audit, DurableMiddleware, durable_actor
from dramatiq_durable.errors import OptionError


class Broken(Exception):
    """What an iterator raises."""


@pytest.mark.parametrize("bad", [0, 65])
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_an_iterator_that_raises_leaves_neither_audits_nor_messages(
    broker, durable, charge, waiting, audits, bad
):
    def arguments():
        yield from ((n,) for n in range(bad))
        raise Broken

    with pytest.raises(Broken):
        charge.send_many(arguments())
    assert audits(durable) == []
    assert waiting(broker) == 0


@pytest.fixture
def strangers(redis_broker, redis_durable, sqlite_db, work):
    """Messages that must not be in a list, by what is wrong with them."""

    class Other(Audit):
        class Meta:
            database = sqlite_db
            table_name = "other_audits"

    running = []
    redis_broker.add_middleware(CurrentMessage())

    @dramatiq.actor
    def plain(n):
        pass

    elsewhere = durable_actor(lambda n: None, actor_name="elsewhere", audit_model=Other)
    redis_durable.create_tables()

    @durable_actor
    def note(n):
        running.append(CurrentMessage.get_current_message())

    note.send(0)
    work()
    return {
        "not durable": plain.message(0),
        "another audit_model": elsewhere.message(0),
        "sent before": running[0],
    }


@pytest.mark.parametrize("bad", [0, 69, 99])
@pytest.mark.parametrize("what", ["not durable", "another audit_model", "sent before"])
def test_a_message_that_is_not_the_lists_refuses_it(
    redis_broker, redis_durable, charge, strangers, waiting, audits, what, bad
):
    messages = [charge.message(n) for n in range(100)]
    messages[bad] = strangers[what]
    before = len(audits(redis_durable))
    with pytest.raises(OptionError):
        redis_durable.send_many(messages)
    assert len(audits(redis_durable)) == before
    assert waiting(redis_broker) == 0


@pytest.mark.parametrize("arguments", [[1], ["text"], [None], [{"n": 1}], [{1}]])
def test_what_is_no_tuple_of_arguments_is_refused(redis_durable, charge, audits, arguments):
    with pytest.raises(OptionError, match="charge"):
        charge.send_many([(0,), *arguments])
    assert audits(redis_durable) == []


class Refuse(dramatiq.Middleware):
    """Refuses the message with *bad* for its argument."""

    def __init__(self, bad):
        self.bad = bad

    def before_enqueue(self, broker, message, delay):
        if message.args[0] == self.bad:
            raise MiddlewareError("not this one")


@pytest.mark.parametrize("bad", [0, 69, 99])
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_another_middleware_that_refuses_a_message_refuses_the_list(
    broker, durable, charge, waiting, eventually, audits, bad, where
):
    refuse = Refuse(bad)
    broker.add_middleware(refuse, **{where: DurableMiddleware})
    messages = [charge.message(n) for n in range(100)]
    with pytest.raises(MiddlewareError, match="not this one"):
        durable.send_many(messages)
    assert audits(durable) == []
    assert waiting(broker) == 0

    refuse.bad = None
    assert durable.send_many(messages) == 100
    assert len(audits(durable)) == 100
    eventually(lambda: waiting(broker) == 100)


@pytest.mark.parametrize("bad", [0, 69, 99])
@pytest.mark.parametrize("broker", ["rabbitmq", "stub"], indirect=True)
def test_a_broker_that_takes_one_message_at_a_time_meets_the_refusal_after_the_commit(
    broker, durable, charge, waiting, eventually, audits, monitor, audit_of, bad
):
    broker.add_middleware(Refuse(bad))
    messages = [charge.message(n) for n in range(100)]
    assert durable.send_many(messages) == len(audits(durable)) == 100
    assert audit_of(messages[bad]).enqueue_count == 0
    eventually(lambda: waiting(broker) == 99)
    monitor.run_once()
    assert "MiddlewareError" in audit_of(messages[bad]).last_error


class Enqueued(dramatiq.Middleware):
    """Notes what has been enqueued, and how many audits there were then."""

    def __init__(self, count):
        self.count = count
        self.noted = []

    def after_enqueue(self, broker, message, delay):
        self.noted.append(self.count())


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_no_hook_is_told_that_a_message_was_enqueued_before_it_is(
    broker, durable, charge, audits, waiting
):
    enqueued = Enqueued(lambda: (len(audits(durable)), waiting(broker) > 0))
    broker.add_middleware(enqueued)
    with pytest.raises(TypeError):
        charge.send_many([(0,), (object(),)])
    assert enqueued.noted == []
    charge.send_many([(0,), (1,)])
    assert [number for number, _ in enqueued.noted] == [2, 2]
    if broker.__class__.__name__ != "RabbitmqBroker":  # it counts what arrives a little later
        assert all(waits for _, waits in enqueued.noted)


@pytest.mark.failure(7)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_a_list_sent_again_keeps_its_audits(broker, durable, charge, ran, work, audits):
    messages = [charge.message(n) for n in range(100)]
    assert durable.send_many(messages) == 100
    work()
    more = [charge.message(100), *messages[::-1], charge.message(101)]
    assert durable.send_many(more) == 102
    work()
    assert sorted(ran) == list(range(102))
    assert {(audit.state, audit.start_count) for audit in audits(durable)} == {("completed", 1)}
    assert len(audits(durable)) == 102


@pytest.mark.failure(7)
@pytest.mark.parametrize("distance", [1, 63, 64, 65])
def test_a_message_that_is_twice_in_a_list_has_one_audit(
    db_durable, charge, ran, work, audits, distance
):
    messages = [charge.message(n) for n in range(100)]
    messages.insert(distance, messages[0])
    db_durable.send_many(messages)
    assert len(audits(db_durable)) == 100
    work()
    assert ran == list(range(100))
