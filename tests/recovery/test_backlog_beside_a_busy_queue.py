"""A queue whose jobs are few among those that were completed lately is known to move all the same."""

from datetime import timedelta

import pytest

from dramatiq_durable import Monitor


@pytest.fixture
def complete(clock):
    """``complete(durable, message)``: a worker completes it now."""

    def complete(durable, message):
        held = durable.store.claim(message.message_id, 0, "c1", worker="w")
        assert durable.store.complete([held]) == set()

    return complete


@pytest.fixture
def complete_elsewhere():
    """``complete_elsewhere(durable, message, number)``: so many jobs like *message*, in another queue and a second later."""

    def complete(durable, message, number):
        audit, database = durable.store.audit, durable.store.database
        with database.connection_context(), database.atomic():
            row = audit.select().where(audit.message_id == message.message_id).dicts().get()
            del row["id"]
            row["queue_name"] = "busy"
            row["finished_at"] += timedelta(seconds=1)
            audit.insert_many(
                [{**row, "message_id": f"busy {each}"} for each in range(number)]
            ).execute()

    return complete


@pytest.mark.failure(36)
@pytest.mark.parametrize("kind", ["unknown", "rabbitmq"])
def test_what_waits_in_order_is_held_although_another_queue_has_completed_far_more(
    request, kind, sqlite_db, make_durable, declare, clock, complete, complete_elsewhere
):
    broker = request.getfixturevalue(kind)
    durable = make_durable(broker, sqlite_db)
    charge = declare()
    first = charge.send("first")
    for order_id in range(20):
        charge.send(order_id)
    clock.move(minutes=12)
    complete(durable, first)
    complete_elsewhere(durable, first, 600)
    clock.move(seconds=5)
    monitor = Monitor(broker)
    done = monitor.run_once()
    # One is sent to see whether the queue moves, for its own progress is not among what was read.
    assert (done.recovered, done.held) == (1, 19)
    clock.move(minutes=5)
    assert monitor.run_once().recovered == 0
