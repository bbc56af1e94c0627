"""What Redis has lost is sent again in few round trips, and what is wrong with one message stays with that."""

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from playhouse.db_url import connect

from dramatiq_durable import Monitor, durable_actor
from tests.support.proxy import Proxy


@pytest.fixture
def durable(redis_broker, sqlite_db, make_durable):
    return make_durable(redis_broker, sqlite_db)


@pytest.fixture
def lose(declare, clock):
    """``lose(broker, count)``: so many messages that *broker* has lost, and that are stale."""

    def lose(broker, count, **options):
        charge = declare(**options)
        sent = [charge.send(order_id) for order_id in range(count)]
        broker.flush_all()
        clock.move(hours=1)
        return sent

    return lose


def test_three_hundred_lost_messages_take_a_few_round_trips_and_statements(
    redis_broker, durable, lose, sqlite_db, work, ran
):
    lose(redis_broker, 300)
    monitor = Monitor(redis_broker, max_rate=1_000_000)
    client, statements = redis_broker.client, []
    sqlite_db.query_hooks.append(statements.append)
    before = client.info("stats")["total_reads_processed"]
    assert monitor.run_once().recovered == 300
    assert client.info("stats")["total_reads_processed"] - before <= 60
    sqlite_db.query_hooks.remove(statements.append)
    assert len(statements) <= 30
    work(threads=4)
    assert sorted(ran) == list(range(300))


@pytest.mark.failure(32)
def test_a_message_that_redis_or_a_middleware_refuses_keeps_none_of_its_neighbours_back(
    redis_broker, durable, lose, clock, audit_of, work, ran
):
    @durable_actor(queue_name="broken")
    def misplaced():
        raise AssertionError

    class Picky(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if message.args == (7,):
                raise dramatiq.middleware.MiddlewareError("not seven")

    bad = misplaced.send()
    sent = lose(redis_broker, 20)
    redis_broker.client.set("dramatiq:broken.msgs", "no hash")
    redis_broker.add_middleware(Picky())
    done = Monitor(redis_broker).run_once()
    assert (done.recovered, done.failed, done.outage) == (19, 2, False)
    assert "WRONGTYPE" in audit_of(bad).last_error
    assert audit_of(sent[7]).last_error == "MiddlewareError: not seven"
    assert [audit_of(each).enqueue_count for each in sent] == [2] * 20
    redis_broker.client.delete("dramatiq:broken.msgs")
    work()
    assert sorted(ran) == [each for each in range(20) if each != 7]


@pytest.fixture
def far(redis_url, use, sqlite_db, make_durable):
    """A RedisBroker behind a network of its own, ``far.proxy``."""
    proxy = Proxy(redis_url)
    broker = use(RedisBroker(url=proxy.url))
    broker.proxy = proxy
    make_durable(broker, sqlite_db)
    yield broker
    proxy.close()


@pytest.mark.failure(2)
def test_when_the_reply_to_many_is_lost_each_job_runs_once(far, lose, clock, work, ran, eventually):
    lose(far, 50)
    far.proxy.lose_the_reply_to("durable_epoch")
    monitor = Monitor(far)
    assert monitor.run_once().recovered == 50
    assert far.proxy.cuts == 1
    work(threads=4)
    assert sorted(ran) == list(range(50))
    clock.move(hours=1)
    assert not monitor.run_once()


@pytest.mark.failure(33)
def test_while_redis_is_down_one_message_is_tried_in_a_pass_and_none_is_counted(
    far, lose, watch, clock, audit_of
):
    sent = lose(far, 50)
    far.proxy.down()
    monitor = Monitor(far)
    assert monitor.run_once().outage
    watcher = watch(far)
    clock.move(minutes=1)
    assert monitor.run_once().outage
    assert len(watcher.enqueued) == 1
    assert {audit_of(each).enqueue_count for each in sent} == {1}
    far.proxy.up()
    clock.move(minutes=1)
    assert monitor.run_once().recovered == 50


@pytest.mark.failure(33)
def test_a_redis_that_is_full_in_the_middle_of_many_is_an_outage(
    own_redis, use, sqlite_db, make_durable, clock, audit_of
):
    broker = use(RedisBroker(url=own_redis().url))
    make_durable(broker, sqlite_db)

    @durable_actor
    def keep(text):
        raise AssertionError

    sent = [keep.send("x" * 20_000) for _ in range(60)]
    broker.flush_all()
    clock.move(hours=1)
    used = broker.client.info("memory")["used_memory"]
    broker.client.config_set("maxmemory", used + 500_000)
    done = Monitor(broker).run_once()
    assert 0 < done.recovered < 60
    assert (done.failed, done.outage) == (0, True)
    assert sorted({audit_of(each).enqueue_count for each in sent}) == [1, 2]


@pytest.mark.failure(39)
@pytest.mark.parametrize("database_url", ["postgres", "mariadb"], indirect=True)
def test_one_that_is_to_be_given_up_and_is_locked_holds_up_no_other(
    redis_broker, db, make_durable, lose, clock, database_url
):
    durable = make_durable(redis_broker, db)

    @durable_actor(max_crashes=1)
    def dies():
        raise AssertionError

    message = dies.send()
    assert durable.store.claim(message.message_id, 0, "c1", worker="w") is not None
    lose(redis_broker, 20)
    other = connect(database_url)
    with other.connection_context(), other.atomic() as transaction:
        other.execute_sql(
            "UPDATE durable_audits SET worker = 'x' WHERE message_id = %s", [message.message_id]
        )
        done = Monitor(redis_broker).run_once()
        transaction.rollback()
    assert (done.recovered, done.dead) == (20, 0)
    assert Monitor(redis_broker).run_once().dead == 1


def test_large_payloads_are_not_all_read_at_once(redis_broker, durable, lose, sqlite_db, clock):
    @durable_actor
    def keep(text):
        raise AssertionError

    for _ in range(10):
        keep.send("x" * 1_500_000)
    lose(redis_broker, 0)
    read = []

    def note(event):
        if event.sql.startswith("SELECT"):
            sqlite_db.query_hooks.remove(note)
            with sqlite_db.connection_context():
                rows = sqlite_db.execute_sql(event.sql, event.params).fetchall()
            sqlite_db.query_hooks.append(note)
            read.append(sum(len(v) for row in rows for v in row if isinstance(v, bytes)))

    sqlite_db.query_hooks.append(note)
    assert Monitor(redis_broker).run_once().recovered == 10
    sqlite_db.query_hooks.remove(note)
    assert 3_000_000 < max(read) < 4_500_000
