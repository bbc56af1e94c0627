"""The database does what it is told, and its answer is lost: nothing is done or counted twice."""

import threading
from datetime import timedelta

import pytest

from dramatiq_durable import DurableMiddleware, RequeueImmediately, durable_actor
from tests.support.proxy import Proxy

pytestmark = pytest.mark.failure(20)


@pytest.fixture
def proxy(server_url):
    proxy = Proxy(server_url)
    yield proxy
    proxy.close()


@pytest.fixture
def lose_the_reply_to_setting(proxy, server_url):
    """``lose_the_reply_to_setting(column)``: that of the next UPDATE that sets it."""
    quote = "`" if server_url.startswith("mysql") else '"'
    return lambda column: proxy.lose_the_reply_to(f"{quote}{column}{quote} = ")


@pytest.fixture
def durable(stub_broker, proxy, make_durable):
    return make_durable(stub_broker, proxy.url)


@pytest.fixture
def near(durable, server_url):
    """The same audits, for somebody whose answers are not lost."""
    middleware = DurableMiddleware(server_url)
    yield middleware.store
    middleware.store.connections.close()


class Body:
    """Of a job that begins, waits for the test, and ends as it is told."""

    def __init__(self):
        self.runs = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error = None

    def __call__(self):
        self.runs += 1
        self.begun.set()
        assert self.go_on.wait(30)
        error, self.error = self.error, None
        if error is not None:
            raise error


@pytest.fixture
def body():
    return Body()


@pytest.fixture
def charge(durable, body):
    @durable_actor(max_retries=1, min_backoff=1, max_backoff=1)
    def charge():
        body()

    return charge


@pytest.fixture
def warned(caplog):
    """``warned()``: whether it was said that an audit was somebody else's."""
    return lambda: "no longer ours" in caplog.text


def test_a_claim_is_known_by_its_claim_id(
    charge, proxy, lose_the_reply_to_setting, near, body, work
):
    message = charge.send()
    body.go_on.set()
    lose_the_reply_to_setting("start_count")
    work()
    assert (proxy.cuts, body.runs) == (1, 1)
    audit = near.get(message.message_id)
    assert (audit.state, audit.start_count, audit.epoch) == ("completed", 1, 1)


@pytest.mark.parametrize("then_down", [False, True], ids=["at once", "after an outage"])
def test_a_completion_is_known_by_its_claim_id(
    charge, durable, proxy, near, body, running_worker, eventually, warned, caplog, then_down
):
    message = charge.send()
    with running_worker():
        assert body.begun.wait(10)
        proxy.lose_the_reply_to("completed", then_down=then_down)
        body.go_on.set()
        eventually(lambda: proxy.cuts == 1)
        if then_down:
            eventually(lambda: "Renewals and completions wait" in caplog.text)
            proxy.up()
        assert durable.flush()
    assert body.runs == 1
    assert near.get(message.message_id).state == "completed"
    assert not warned()


@pytest.mark.parametrize(
    ("error", "counter"),
    [(ValueError("no luck"), "failure_count"), (RequeueImmediately(), "requeue_count")],
    ids=["release", "requeue"],
)
def test_what_became_of_a_job_is_counted_once(
    charge, proxy, lose_the_reply_to_setting, near, body, work, monitor, error, counter
):
    message = charge.send()
    body.error = error
    body.go_on.set()
    lose_the_reply_to_setting(counter)
    work()
    monitor.run_once()
    work()
    assert (proxy.cuts, body.runs) == (1, 2)
    audit = near.get(message.message_id)
    assert (audit.state, audit.start_count, getattr(audit, counter)) == ("completed", 2, 1)


def test_a_completion_that_is_refused_after_an_outage_is_not_tried_again(
    charge, durable, proxy, near, body, running_worker, clock, eventually, warned, caplog
):
    message = charge.send()
    with running_worker():
        assert body.begun.wait(10)
        proxy.down()
        body.go_on.set()
        eventually(lambda: "Renewals and completions wait" in caplog.text)
        clock.move(hours=1)
        [stale] = near.stale(10)
        assert near.mark(stale, timedelta(0))
        other = near.claim(message.message_id, 1, "another", worker="another")
        assert other is not None
        proxy.up()
        assert durable.flush()
    assert warned()
    assert near.heartbeat([other]) == set()
    assert near.complete([other]) == set()
    assert body.runs == 1
