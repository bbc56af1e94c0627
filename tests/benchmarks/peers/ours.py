"""dramatiq-durable with its default options."""

from .peer import PLAIN, Peer, dramatiq_worker, prefetch_environment, prefetching

SOURCE = """
    import os
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.benchmarks.job import job

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    durable = DurableMiddleware(os.environ["DATABASE_URL"])
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)


    @durable_actor
    def noop():
        job()


    def setup():
        durable.create_tables()


    def send(count):
        for _ in range(count):
            noop.send()


    def send_many(count):
        noop.send_many(() for _ in range(count))
"""

TITLES = {"postgres": "PostgreSQL", "mariadb": "MariaDB", "sqlite": "SQLite"}


def ours(database: str, threads: int = 8, prefetch: int | None = None) -> Peer:
    return Peer(
        f"dramatiq-durable, {TITLES[database]}" + prefetching(prefetch),
        SOURCE,
        dramatiq_worker(threads),
        database,
        "SELECT count(*) FROM durable_audits WHERE due_at IS NOT NULL",
        prefetch_environment(prefetch),
        PLAIN + prefetching(prefetch),
    )
