"""``send_many()`` while the broker, the database or the sender fails: all of a list or nothing of it."""

import pytest
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import AuditWriteFailed, DurableMiddleware, durable_actor

NUMBER = 200


# The broker


class Noting(DurableMiddleware):
    """Notes what could not be enqueued."""

    def enqueue_failed(self, broker, message, error):
        self.failed = [*getattr(self, "failed", []), message.message_id]
        super().enqueue_failed(broker, message, error)


@pytest.mark.failure(3)
@pytest.mark.parametrize("use_of_the_queue", ["first", "later"])
@pytest.mark.parametrize("where", ["alone", "in a transaction"])
def test_a_list_is_sent_by_the_monitor_when_the_broker_was_down(
    far_broker,
    sqlite_db,
    make_durable,
    charge,
    ran,
    recover,
    work,
    audits,
    use_of_the_queue,
    where,
    caplog,
):
    durable = make_durable(far_broker, sqlite_db, Noting)
    if use_of_the_queue == "later":
        charge.send("before")
        work()
        ran.clear()
    messages = [charge.message(n) for n in range(70)]
    if where == "alone":
        far_broker.proxy.down()
        assert durable.send_many(messages) == 70
    else:
        with sqlite_db.atomic():
            durable.send_many(messages)
            far_broker.proxy.down()
    assert sorted(durable.failed) == sorted(message.message_id for message in messages)
    assert all(message.message_id in caplog.text for message in messages)
    assert {a.enqueue_count for a in audits(durable) if a.state == "pending"} == {0}

    far_broker.proxy.up()
    recover()
    assert sorted(ran) == list(range(70))
    assert {(a.state, a.enqueue_count) for a in audits(durable)} == {("completed", 1)}


@pytest.mark.failure(3)
@pytest.mark.parametrize("number", [1, 70])
def test_a_list_is_sent_whole_although_the_broker_dies_in_the_middle(
    far_broker, sqlite_db, make_durable, charge, ran, recover, audits, clock, number
):
    durable = make_durable(far_broker, sqlite_db)

    def die(written, sent):
        if sent >= number:
            far_broker.proxy.down()

    assert charge.send_many(((n,) for n in range(NUMBER)), progress=die) == NUMBER
    counts = [audit.enqueue_count for audit in audits(durable)]
    assert len(counts) == NUMBER
    assert number <= counts.count(1) < NUMBER

    far_broker.proxy.up()
    recover()
    clock.move(minutes=11)  # RabbitMQ without confirmations may have lost some
    recover()
    assert sorted(ran) == list(range(NUMBER))
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(2)
@pytest.mark.parametrize("afterwards", ["up", "down"])
@pytest.mark.parametrize("far_broker", ["redis", "rabbitmq-confirm"], indirect=True)
def test_a_list_whose_receipt_is_lost_runs_once(
    far_broker, sqlite_db, make_durable, ran, recover, work, audits, clock, afterwards
):
    durable = make_durable(far_broker, sqlite_db)
    note = durable_actor(ran.append, actor_name="note")
    note.send("warm up")
    work()
    far_broker.proxy.lose_the_reply_to("receipt", then_down=afterwards == "down")
    note.send_many((f"receipt {n}" if n == 65 else n,) for n in range(NUMBER))
    assert far_broker.proxy.cuts == 1
    if afterwards == "down":
        far_broker.proxy.up()
    recover()
    clock.move(minutes=11)
    recover()
    assert len(ran) == len(set(ran)) == NUMBER + 1
    assert {audit.state for audit in audits(durable)} == {"completed"}


@pytest.mark.failure(3)
def test_a_redis_without_memory_costs_no_job_of_a_list(
    own_redis, use, sqlite_db, make_durable, charge, ran, recover, audits, waiting
):
    broker = use(RedisBroker(url=own_redis("--maxmemory-policy", "noeviction").url))
    durable = make_durable(broker, sqlite_db)
    charge()
    broker.client.config_set("maxmemory", 1)
    charge.send_many((n,) for n in range(70))
    assert waiting(broker) == 0
    assert {audit.enqueue_count for audit in audits(durable)} == {0}

    broker.client.config_set("maxmemory", 0)
    recover()
    assert sorted(ran) == list(range(70))
    assert {(a.state, a.enqueue_count) for a in audits(durable)} == {("completed", 1)}


@pytest.mark.parity(32)
@pytest.mark.failure(36)
def test_a_list_that_still_waits_in_redis_is_not_sent_again(
    redis_broker, db, make_durable, charge, waiting, monitor, clock, within
):
    make_durable(redis_broker, db)
    with within(db):
        charge.send_many((n,) for n in range(70))
    clock.move(minutes=12)
    monitor.run_once()
    assert waiting(redis_broker) == 70


# The database


@pytest.fixture(params=["postgres", "mariadb"])
def far(request, stub_broker, make_proxy, make_durable):
    """A DurableMiddleware whose database is behind a network of its own, ``far.proxy``."""
    proxy = make_proxy(request.getfixturevalue(f"{request.param}_url"))
    durable = make_durable(stub_broker, proxy.url)
    durable.proxy = proxy
    return durable


class Lenient(DurableMiddleware):
    """Sends messages without audits rather than not at all."""

    def audit_failed(self, broker, message, error):
        pass


@pytest.mark.failure(4)
@pytest.mark.parity(8)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq-confirm", "stub"], indirect=True)
def test_an_audit_failed_that_does_not_raise_sends_a_list_without_audits(
    broker, tmp_path, charge, waiting, eventually
):
    broker.add_middleware(Lenient(f"sqlite:///{tmp_path}/missing/audits.db"))
    assert charge.send_many((n,) for n in range(70)) == 70
    eventually(lambda: waiting(broker) == 70)


@pytest.mark.failure(4)
@pytest.mark.parametrize("dies_at", [None, 1, 140, 199])
def test_a_database_that_dies_leaves_neither_audits_nor_messages(
    stub_broker, far, charge, ran, waiting, audits, work, dies_at
):
    charge.send("warm up")
    messages = [charge.message(n) for n in range(NUMBER)]
    if dies_at is None:
        far.proxy.down()
    else:
        far.proxy.lose_the_reply_to(messages[dies_at].message_id, then_down=True)
    for _ in range(2):
        with pytest.raises(AuditWriteFailed):
            far.send_many(messages)
    assert far.proxy.cuts == (dies_at is not None)
    assert waiting(stub_broker) == 1

    far.proxy.up()
    assert len(audits(far)) == 1
    assert far.send_many(messages) == NUMBER
    work()
    assert ran == ["warm up", *range(NUMBER)]


@pytest.mark.failure(4)
@pytest.mark.parametrize("lost_at", [1, 140, 199, "COMMIT"])
def test_a_connection_that_is_lost_on_the_way_goes_unnoticed(
    stub_broker, far, charge, ran, audits, work, lost_at
):
    charge.send("warm up")
    messages = [charge.message(n) for n in range(NUMBER)]
    far.proxy.lose_the_reply_to(lost_at if lost_at == "COMMIT" else messages[lost_at].message_id)
    assert far.send_many(messages) == NUMBER
    assert far.proxy.cuts == 1
    work()
    assert ran == ["warm up", *range(NUMBER)]
    assert len(audits(far)) == NUMBER + 1


@pytest.mark.failure(4)
def test_of_a_list_whose_commit_is_not_answered_no_job_runs_twice(
    far, charge, ran, audits, work, recover, clock
):
    """What became of the audits nobody can know then; here they are written, and will be recovered."""
    charge.send("warm up")
    work()
    far.proxy.lose_the_reply_to("COMMIT", then_down=True)
    with pytest.raises(AuditWriteFailed):
        charge.send_many((n,) for n in range(NUMBER))
    assert far.proxy.cuts == 1

    far.proxy.up()
    work()
    assert ran == ["warm up"]
    assert len(audits(far)) == NUMBER + 1
    clock.move(minutes=11)
    recover()
    assert sorted(ran[1:]) == list(range(NUMBER))


@pytest.mark.failure(39)
def test_lists_of_the_same_messages_in_opposite_orders_are_written_beside_each_other(
    db_durable, charge, ran, work, audits, send_beside_each_other
):
    messages = [charge.message(n) for n in range(NUMBER)]
    orders = [messages, messages[::-1], messages[100:] + messages[:100], messages[::-2]]
    assert send_beside_each_other(db_durable, orders) == [NUMBER // 2, NUMBER, NUMBER, NUMBER]
    assert len(audits(db_durable)) == NUMBER
    work()
    assert sorted(ran) == list(range(NUMBER))
