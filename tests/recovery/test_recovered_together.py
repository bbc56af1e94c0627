"""What Redis has lost is sent again in few round trips, and what is wrong with one message stays with that."""

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

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
    assert len(statements) <= 20
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
