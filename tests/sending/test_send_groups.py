"""``group.run()``: all of its durable messages have audits, or none has."""

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import Audit, DurableError, durable_actor


@pytest.fixture
def charge(durable, charge):
    return charge(max_payload_size=2_000)


def test_the_audits_of_a_group_are_inserted_together(durable, charge, statements, work, ran):
    group = dramatiq.group([charge.message(number) for number in range(100)])
    with statements(durable.store.database) as events:
        assert group.run() is group
    assert sum("INSERT" in each.upper() for each in map(str, events)) == 2
    work()
    assert sorted(ran) == list(range(100))


def test_a_group_with_one_message_that_is_refused_sends_none(durable, charge, audits, work, ran):
    group = dramatiq.group([charge.message(1), charge.message("x" * 2_000), charge.message(2)])
    with pytest.raises(DurableError, match="max_payload_size"):
        group.run()
    assert audits(durable) == []
    work()
    assert ran == []


def test_a_group_is_part_of_a_transaction(durable, charge, audits, work, ran):
    database = durable.store.database
    with pytest.raises(KeyError), database.atomic():
        dramatiq.group([charge.message(1), charge.message(2)]).run()
        raise KeyError
    assert audits(durable) == []
    with database.atomic():
        dramatiq.group([charge.message(3), charge.message(4)]).run()
    work()
    assert sorted(ran) == [3, 4]


def test_what_is_not_durable_or_has_another_table_is_sent_too(durable, charge, audits, work, ran):
    class Second(Audit):
        class Meta:
            database = durable.store.database
            table_name = "second"

    @durable_actor(audit_model=Second)
    def second(number):
        ran.append(number)

    @dramatiq.actor
    def plain(number):
        ran.append(number)

    durable.create_tables()
    steps = dramatiq.pipeline([charge.message(5), plain.message_with_options(args=())])
    messages = [plain.message(1), charge.message(2), second.message(3), charge.message(4), steps]
    dramatiq.group(messages).run()
    work()
    assert sorted(ran, key=str) == [1, 2, 3, 4, 5, None]
    assert sum(isinstance(audit, Second) for audit in audits(durable)) == 1
    assert len(audits(durable)) == 4


def test_a_delayed_group_starts_later(durable, charge, audits):
    dramatiq.group([charge.message(1), charge.message(2)]).run(delay=60_000)
    for audit in audits(durable):
        wait = audit.scheduled_at - audit.created_at
        assert 59 < wait.total_seconds() < 61


def test_a_group_of_another_broker_is_left_alone(durable, charge):
    other = StubBroker()

    @dramatiq.actor(broker=other)
    def plain():
        pass

    dramatiq.group([plain.message(), plain.message()], broker=other).run()
    assert other.queues["default"].qsize() == 2


def test_a_group_in_a_group_is_part_of_it(durable, charge, audits, work, ran):
    inner = dramatiq.group([charge.message(1), charge.message(2)])
    with pytest.raises(DurableError, match="max_payload_size"):
        dramatiq.group([inner, charge.message("x" * 2_000)]).run()
    assert audits(durable) == []
    work()
    assert ran == []
