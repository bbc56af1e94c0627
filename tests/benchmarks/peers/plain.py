"""Dramatiq alone; it acknowledges a message when its job is done, and records nothing."""

from .peer import PLAIN, Peer, dramatiq_worker, prefetch_environment, prefetching

SOURCE = """
    import os
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
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
