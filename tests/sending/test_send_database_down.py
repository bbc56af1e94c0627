"""The database cannot be reached, or its answer is lost."""

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor


@pytest.fixture(params=["postgres", "mariadb"])
def far_url(request, make_proxy):
    """The URL of a database behind a network of its own; and that network."""
    proxy = make_proxy(request.getfixturevalue(f"{request.param}_url"))
    return proxy.url, proxy


@pytest.fixture
def nowhere(tmp_path):
    """The URL of a database that cannot be opened."""
    return f"sqlite:///{tmp_path}/missing/audits.db"


@pytest.mark.failure(4)
@pytest.mark.parity(8)
def test_without_a_database_a_send_raises_and_nothing_is_pushed(broker, nowhere, waiting):
    broker.add_middleware(DurableMiddleware(nowhere))

    @durable_actor
    def charge(order_id):
        pass

    with pytest.raises(AuditWriteFailed) as caught:
        charge.send("a secret")
    assert caught.value.actor_name == "charge"
    assert caught.value.message_id in str(caught.value)
    assert "charge" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert waiting(broker) == waiting(broker, "default") == 0


@pytest.mark.failure(4)
def test_without_a_database_a_delayed_message_is_not_pushed_either(stub_broker, nowhere, waiting):
    stub_broker.add_middleware(DurableMiddleware(nowhere))

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed):
        charge.send_with_options(delay=1000)
    assert waiting(stub_broker, "default.DQ") == 0


@pytest.mark.failure(4)
def test_without_a_database_actors_that_are_not_durable_run(broker, nowhere, work):
    broker.add_middleware(DurableMiddleware(nowhere))
    ran = []

    @durable_actor(queue_name="billing")
    def charge():
        pass

    @dramatiq.actor
    def greet(name):
        ran.append(name)

    greet.send("Ada")
    work()
    assert ran == ["Ada"]


@pytest.mark.failure(4)
@pytest.mark.parametrize("compose", ["pipeline", "group", "enqueue"])
def test_without_a_database_compositions_raise_too(stub_broker, nowhere, waiting, compose):
    stub_broker.add_middleware(DurableMiddleware(nowhere))

    @durable_actor
    def charge(order_id):
        pass

    run = {
        "pipeline": dramatiq.pipeline([charge.message(1), charge.message()]).run,
        "group": dramatiq.group([charge.message(1), charge.message(2)]).run,
        "enqueue": lambda: stub_broker.enqueue(charge.message(1)),
    }[compose]
    with pytest.raises(AuditWriteFailed):
        run()
    assert waiting(stub_broker) == 0


@pytest.mark.failure(4)
def test_a_missing_table_is_no_reason_to_push(stub_broker, sqlite_db, waiting):
    stub_broker.add_middleware(DurableMiddleware(sqlite_db))

    @durable_actor
    def charge():
        pass

    with pytest.raises(AuditWriteFailed):
        charge.send()
    assert waiting(stub_broker) == 0


@pytest.mark.failure(4)
def test_a_database_that_went_away_stops_sends_and_its_return_heals_them(
    stub_broker, far_url, make_durable, charge, ran, work, audits, waiting
):
    url, proxy = far_url
    durable = make_durable(stub_broker, url)
    charge.send(1)
    work()
    proxy.down()
    for _ in range(2):
        with pytest.raises(AuditWriteFailed):
            charge.send(2)
    assert waiting(stub_broker) == 0

    proxy.up()
    charge.send(3)
    work()
    assert ran == [1, 3]
    assert len(audits(durable)) == 2


@pytest.mark.failure(4)
def test_a_restart_of_the_database_between_two_sends_goes_unnoticed(
    stub_broker, far_url, make_durable, audits
):
    url, proxy = far_url
    durable = make_durable(stub_broker, url)

    @durable_actor
    def charge(order_id):
        pass

    charge.send(1)
    proxy.down()
    proxy.up()
    charge.send(2)
    assert len(audits(durable)) == 2


@pytest.mark.failure(4)
def test_an_audit_whose_receipt_is_lost_is_written_once_and_its_job_runs_once(
    stub_broker, far_url, make_durable, work, audits
):
    url, proxy = far_url
    durable = make_durable(stub_broker, url)
    ran = []

    @durable_actor
    def warm_up():
        ran.append("warm up")

    @durable_actor
    def receipt():
        ran.append("receipt")

    warm_up.send()
    proxy.lose_the_reply_to("receipt")  # the actor's name, a parameter of the INSERT
    message = receipt.send()
    assert proxy.cuts == 1

    work()
    assert sorted(ran) == ["receipt", "warm up"]
    assert durable.store.get(message.message_id).state == "completed"
    assert len(audits(durable)) == 2


@pytest.mark.failure(4)
def test_when_the_database_dies_over_the_receipt_the_sender_learns_it_and_nothing_is_pushed(
    stub_broker, far_url, make_durable, audits, waiting
):
    """What became of the audit nobody can know then; here it is written, and will be recovered."""
    url, proxy = far_url
    durable = make_durable(stub_broker, url)

    @durable_actor
    def warm_up():
        pass

    @durable_actor
    def receipt():
        pass

    warm_up.send()
    proxy.lose_the_reply_to("receipt", then_down=True)
    with pytest.raises(AuditWriteFailed) as caught:
        receipt.send()
    assert proxy.cuts == 1
    assert waiting(stub_broker) == 1

    proxy.up()
    assert caught.value.message_id in {audit.message_id for audit in audits(durable)}


@pytest.mark.failure(4)
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_killed_database_server_stops_sends_and_its_start_heals_them(
    kind, request, redis_url, use, make_durable, work, audits, waiting
):
    server = request.getfixturevalue(f"own_{kind}")()
    broker = use(RedisBroker(url=redis_url))
    with server.fresh() as url:
        durable = make_durable(broker, url)
        ran = []

        @durable_actor
        def charge(order_id):
            ran.append(order_id)

        charge.send(1)
        server.kill()
        with pytest.raises(AuditWriteFailed):
            charge.send(2)
        assert waiting(broker) == 1

        server.start()
        charge.send(3)
        work()
        assert ran == [1, 3]
        assert [audit.state for audit in audits(durable)] == ["completed", "completed"]
