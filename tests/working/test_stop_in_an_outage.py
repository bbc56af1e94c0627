"""The worker stops while it waits for a database that does not answer."""

import dramatiq
import pytest

from dramatiq_durable import durable_actor


@pytest.mark.failure(19)
def test_a_job_that_could_not_be_claimed_is_neither_compensated_nor_lost(
    own_postgres,
    stub_broker,
    make_durable,
    ran,
    running_worker,
    eventually,
    work,
    monitor,
    clock,
    audit_of,
    caplog,
):
    server = own_postgres()
    make_durable(stub_broker, server.url)

    @dramatiq.actor
    def refund(data, info):
        ran.append("refund")

    @durable_actor(max_retries=0, on_retry_exhausted="refund")
    def charge():
        ran.append("charge")

    message = charge.send()
    server.stop()
    with running_worker():
        eventually(lambda: f"{message.message_id} waits" in caplog.text)
    server.start()
    work()
    assert ran == []
    assert audit_of(message).state == "pending"

    clock.move(minutes=11)
    assert monitor.run_once().recovered == 1
    work()
    assert ran == ["charge"]
    assert audit_of(message).state == "completed"
