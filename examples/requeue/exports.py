"""A job that is not done yet: it gives its place back, and the monitor sends it again."""

from __future__ import annotations

import dramatiq
import peewee
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, Monitor, RequeueImmediately, durable_actor

broker = StubBroker()
durable = DurableMiddleware(peewee.SqliteDatabase(":memory:"))
broker.add_middleware(durable)
dramatiq.set_broker(broker)

pages_left = {"report": 3}


@durable_actor
def export(name: str) -> None:
    pages_left[name] -= 1
    print(f"{name}: pages left: {pages_left[name]}")
    if pages_left[name]:
        raise RequeueImmediately  # not an error: no retry, no dead letter, no backoff


def main() -> None:
    durable.create_tables()
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()
    monitor = Monitor(broker)  # in production a process: dramatiq-durable monitor app:broker
    export.send("report")
    run_what_waits(worker)
    while pages_left["report"]:
        recovered = monitor.run_once().recovered
        run_what_waits(worker)
        print(f"monitor: sent {recovered} again")
    worker.stop()


def run_what_waits(worker: dramatiq.Worker) -> None:
    broker.join(export.queue_name)
    worker.join()


if __name__ == "__main__":
    main()
