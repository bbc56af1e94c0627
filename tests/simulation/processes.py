"""What each process does: an application with the real middleware, and Dramatiq's own worker in it."""

from __future__ import annotations

from collections.abc import Callable
from queue import PriorityQueue
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.common import dq_name
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Callbacks, Pipelines, Retries
from dramatiq.worker import ConsumerThread, WorkerThread

from dramatiq_durable import DurableError, DurableMiddleware, Monitor, durable_actor
from dramatiq_durable.middleware import find_middleware
from dramatiq_durable.pipelining import Pipelining

from .bodies import Refusal
from .broker import SimulatedBroker
from .database import SimulatedAudit, database
from .plan import Action, Job
from .scheduler import START, Process

if TYPE_CHECKING:
    from .world import World

QUEUE = "default"


class RolledBack(Exception):
    pass


class Application(Process):
    """A process that has loaded the application: its broker, its middleware, its actors."""

    def __init__(self, world: World, name: str, main: Callable[[Application], None]) -> None:
        super().__init__(name)
        self.world = world
        self.main = main
        self.stopping = False
        self.threads = 0

    def start(self, after: float = 0) -> None:
        def run() -> None:
            if after:
                self.world.scheduler.sleep(after)
            self._load()
            self.main(self)

        self.world.scheduler.start(self, self.name, run)

    def _load(self) -> None:
        plan = self.world.plan
        durable = DurableMiddleware(
            database, audit_model=SimulatedAudit, max_crashes=plan.max_crashes
        )
        others = [Retries(max_retries=1, min_backoff=2_000), Pipelines(), Callbacks()]
        self.broker = SimulatedBroker(self.world.server, self, names_copies=plan.names_copies)
        for middleware in [durable, *others] if plan.durable_first else [*others, durable]:
            self.broker.add_middleware(middleware)

        def body(label: str, *_: Any) -> str:
            return self.world.bodies.run(self, label)

        options: dict[str, Any] = {"broker": self.broker, "throws": Refusal}
        self.kept = durable_actor(actor_name="kept", **options)(body)
        self.unkept = durable_actor(actor_name="unkept", heartbeat_interval=None, **options)(body)

    def message(self, job: Job) -> dramatiq.Message[Any]:
        actor = self.unkept if job.unkept else self.kept
        message: dramatiq.Message[Any] = actor.message(job.label)
        self.world.ledger.made(job.label, message.message_id)
        return message

    def send(self, job: Job) -> None:
        """Enqueue a job, in a transaction if that is planned, and tell the ledger how it went."""
        ledger, message = self.world.ledger, self.message(job)
        if job.kind == "pipes":
            assert job.follower is not None
            message = (message | self.message(job.follower)).messages[0]
        with ledger.sending(message.message_id) as sending:
            if job.transaction is None:
                self.broker.enqueue(message, delay=job.delay)
                return
            sending.uncertain = True  # until COMMIT or ROLLBACK have answered
            try:
                with database.connection_context(), database.atomic():
                    self.broker.enqueue(message, delay=job.delay)
                    if job.transaction == "roll back":
                        raise RolledBack
            except RolledBack:
                sending.rolled_back = True


def produce(jobs: list[Job]) -> Callable[[Application], None]:
    def main(app: Application) -> None:
        for job in jobs:
            app.world.scheduler.sleep(app.world.rng.choice((0, 0, 1, 15)))
            app.send(job)

    return main


def operate(actions: list[Action]) -> Callable[[Application], None]:
    def main(app: Application) -> None:
        [store] = find_middleware(app.broker).stores()
        for action in actions:
            app.world.scheduler.sleep(action.after)
            message_id = app.world.ledger.message_id(action.label)
            if message_id is not None:
                with app.world.ledger.operating(action.verb, message_id):
                    sum(getattr(store, action.verb)([message_id]))

    return main


class Together(Pipelining):
    """As for a broker that takes many messages in one round trip, but that they go one by one."""

    collects = True

    def push_all(self, messages: Any) -> Any:
        return [self._attempt(*each) for each in messages]


def watch(app: Application) -> None:
    """Make a pass whenever an audit is due; those in between, which find nothing, are left out."""
    world, now = app.world, app.world.scheduler
    monitor = Monitor(app.broker)
    if world.plan.together:
        monitor.middleware.pipelining = Together(app.broker)
    earliest = 0.0
    while True:
        lag = world.rng.choice((0.001, 0.001, 1, 5))

        def moment(lag: float = lag, earliest: float = earliest) -> float | None:
            due = world.ledger.next_due()
            return None if due is None else max(due + lag, earliest)

        world.scheduler.wait(moment=moment)
        try:
            monitor.run_once()
        except DurableError as error:
            world.note(f"the pass failed: {type(error).__name__}")
        earliest = now.now + monitor.interval


def serve(app: Application) -> None:
    """A worker with as many threads as planned, each with consumers of its own."""
    app.broker.emit_before("worker_boot", None)
    scheduler = app.world.scheduler
    app.threads = app.world.plan.job_threads
    for number in range(1, app.threads):
        scheduler.start(app, f"{app.name}/{number}", lambda: _work(app))
    _work(app)


def shut_down(app: Application) -> None:
    """As Dramatiq does at SIGTERM: running jobs end first, and the copies that wait go back."""
    app.broker.emit_before("worker_shutdown", None)
    app.stopping = True
    app.world.scheduler.wait(lambda: not app.threads)
    app.world.server.redeliver(app)
    app.broker.emit_after("worker_shutdown", None)
    app.world.exited(app)


def _work(app: Application) -> None:
    server, scheduler = app.world.server, app.world.scheduler
    work_queue: PriorityQueue[Any] = PriorityQueue()
    consumers = {}
    for name in (QUEUE, dq_name(QUEUE)):
        consumers[name] = consumer = ConsumerThread(
            broker=app.broker, queue_name=name, prefetch=1, work_queue=work_queue, worker_timeout=0
        )
        consumer.consumer = app.broker.consume(name)
    worker = WorkerThread(
        broker=app.broker, consumers=consumers, work_queue=work_queue, worker_timeout=0
    )

    def next_eta() -> float | None:
        items = [item for each in consumers.values() for item in each.delay_queue.queue]
        return min(item.priority for item in items) / 1000 - START + 0.001 if items else None

    while not app.stopping:
        scheduler.wait(lambda: app.stopping or server.has_messages(), next_eta)
        for consumer in consumers.values():
            _consume(app, consumer)
        while not work_queue.empty():
            worker.process_message(work_queue.get().message)
    app.threads -= 1


def _consume(app: Application, consumer: ConsumerThread) -> None:
    assert consumer.consumer is not None
    try:
        message = next(consumer.consumer)
        if message is not None:
            consumer.handle_message(message)
        consumer.handle_delayed_messages()
    except BrokerConnectionError:
        # Dramatiq connects again, and a broker gives it again what that consumer had not acked.
        consumer.delay_queue = PriorityQueue()
        app.world.server.redeliver(app, consumer.queue_name)
