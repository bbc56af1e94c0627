"""Dramatiq alone; it acknowledges a message when its job is done, and records nothing."""

from .peer import PLAIN, Peer, dramatiq_worker, prefetch_environment, prefetching

SOURCE = """
    import os
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq_durable.pipelining import pipelining_of
    from tests.benchmarks.job import job

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    dramatiq.set_broker(broker)


    @dramatiq.actor
    def noop():
        job()


    def setup():
        pass


    def send(count):
        for _ in range(count):
            noop.send()


    def send_many(count):
        another = RedisBroker(url=os.environ["BROKER_URL"])
        another.declare_queue("default")
        pipelining = pipelining_of(another)
        for _ in range(0, count, 64):
            pipelining.push_all([(noop.message(), None) for _ in range(64)])
"""


def plain(threads: int = 8, prefetch: int | None = None) -> Peer:
    name = PLAIN + prefetching(prefetch)
    return Peer(
        name,
        SOURCE,
        dramatiq_worker(threads),
        database="",
        environment=prefetch_environment(prefetch),
        beside=name,
    )
