"""``run()`` in the main thread ends at TERM and INT, after its batch; then they are handled as they were before."""

import signal
import threading

import pytest

from dramatiq_durable import Monitor
from dramatiq_durable.errors import SchemaMismatch

pytestmark = pytest.mark.parity(29)

SOURCE = """
    import pathlib
    import signal
    import time

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from dramatiq_durable import DurableMiddleware, Monitor, durable_actor


    class SlowBroker(StubBroker):
        def enqueue(self, message, *, delay=None):
            while pathlib.Path("slow").exists():
                print("pushing", flush=True)
                time.sleep(0.01)
            return super().enqueue(message, delay=delay)


    broker = SlowBroker()
    durable = DurableMiddleware()
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()


    @durable_actor
    def charge():
        pass


    def run(**handlers):
        # What started the tests may have had them ignored.
        defaults = {"TERM": signal.SIG_DFL, "INT": signal.default_int_handler, "HUP": signal.SIG_DFL}
        for name, handler in {**defaults, **handlers}.items():
            signal.signal(signal.Signals[f"SIG{name}"], handler)
        with durable.store.database.connection_context():
            charge.send()
            durable.store.audit.update(due_at=durable.store.now()).execute()
        pathlib.Path("slow").touch()
        Monitor(broker, interval=600).run()
        print("run() has returned", flush=True)


    def note(signum, frame):
        print("handled", signal.Signals(signum).name, flush=True)
"""


@pytest.fixture
def shop(app, sqlite_url):
    return app(SOURCE, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url)


@pytest.fixture
def confirmed(shop, sqlite_db):
    """``confirmed()``: how many messages were sent twice, and their pushes confirmed."""
    counted = (
        "SELECT count(*) FROM durable_audits WHERE enqueue_count = 2 AND enqueued_at IS NOT NULL"
    )
    return lambda: sqlite_db.execute_sql(counted).fetchone()[0]


@pytest.fixture
def begin(shop):
    """``begin(code)``: a process that runs *code*, and is in the middle of a push."""

    def begin(code):
        process = shop.process(code)
        process.wait_for("pushing")
        return process

    return begin


@pytest.fixture
def signalled(eventually):
    """``signalled(process, signum, times)``: it has got the signal so often, each time by itself."""

    def send(process, signum, times):
        for _ in range(times):
            process.signal(signum)
            pushes = process.output().count("pushing")
            eventually(lambda before=pushes: process.output().count("pushing") > before + 1)

    return send


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_without_handlers_of_its_own_the_process_ends_by_the_signal_after_the_batch(
    shop, begin, signalled, confirmed, signum
):
    process = begin("import app; app.run()")
    signalled(process, signum, times=2)
    assert process.returncode is None
    assert confirmed() == 0
    (shop.folder / "slow").unlink()
    assert process.wait() == -signum
    assert confirmed() == 1
    assert "run() has returned" not in process.output()
    assert ("KeyboardInterrupt" in process.output()) == (signum == signal.SIGINT)


def test_a_handler_of_its_own_is_called_once_when_the_batch_is_done(
    shop, begin, signalled, confirmed
):
    process = begin("import app; app.run(TERM=app.note)")
    signalled(process, signal.SIGTERM, times=3)
    (shop.folder / "slow").unlink()
    assert process.wait() == 0
    assert process.output().splitlines()[-2:] == ["handled SIGTERM", "run() has returned"]
    assert confirmed() == 1


def test_a_handler_that_raises_keeps_no_other_from_its_signal(shop, begin, signalled):
    process = begin("import app; app.run(TERM=app.note)")
    signalled(process, signal.SIGINT, times=1)
    signalled(process, signal.SIGTERM, times=1)
    (shop.folder / "slow").unlink()
    assert process.wait() == -signal.SIGINT
    assert "handled SIGTERM" in process.output()


def test_hup_ends_it_where_it_is_handled_as_term_is(shop, begin):
    process = begin("import app; app.run(TERM=app.note, HUP=app.note)")
    process.signal(signal.SIGHUP)
    (shop.folder / "slow").unlink()
    assert process.wait() == 0
    assert process.output().splitlines()[-2:] == ["handled SIGHUP", "run() has returned"]


def test_a_hup_that_means_something_else_does_not_end_it(shop, begin):
    process = begin("import app; app.run(HUP=app.note)")
    process.signal(signal.SIGHUP)
    process.wait_for("handled SIGHUP")
    (shop.folder / "slow").unlink()
    process.signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_what_is_ignored_stays_ignored(shop, begin, confirmed, eventually):
    process = begin("import app, signal; app.run(INT=signal.SIG_IGN, TERM=app.note)")
    process.signal(signal.SIGINT)
    (shop.folder / "slow").unlink()
    eventually(lambda: confirmed() == 1)
    process.signal(signal.SIGINT)
    assert process.returncode is None
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.output().splitlines()[-2:] == ["handled SIGTERM", "run() has returned"]


def handlers():
    return [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def test_afterwards_the_handlers_are_those_of_before(stub_broker, stub_durable, sqlite_db):
    before = handlers()
    monitor = Monitor(stub_broker)
    monitor.stop()
    monitor.run()
    assert handlers() == before
    sqlite_db.execute_sql("DROP TABLE durable_audits")
    with pytest.raises(SchemaMismatch):
        Monitor(stub_broker).run()
    assert handlers() == before


def test_in_another_thread_it_leaves_them_alone(stub_broker, stub_durable, sqlite_db):
    before = handlers()
    seen = []
    sqlite_db.query_hooks.append(lambda event: seen.append(handlers()))
    monitor = Monitor(stub_broker, interval=600)
    thread = threading.Thread(target=monitor.run)
    thread.start()
    while not seen:
        thread.join(0.01)
    monitor.stop()
    thread.join()
    assert all(each == before for each in seen)
