"""dramatiq-postgres, a broker for Dramatiq; a message that is acknowledged is deleted."""

from .peer import Peer, dramatiq_worker

SOURCE = """
    import os
    import dramatiq
    import dramatiq_postgres
    import psycopg
    from tests.benchmarks.job import job

    broker = dramatiq_postgres.PostgresBroker(url=os.environ["DATABASE_URL"])
    dramatiq.set_broker(broker)


    @dramatiq.actor
    def noop():
        job()


    def setup():
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            dramatiq_postgres.init(connection.cursor())


    def send(count):
        for _ in range(count):
            noop.send()
"""


def dramatiq_postgres() -> Peer:
    return Peer(
        "dramatiq-postgres",
        SOURCE,
        dramatiq_worker(),
        open="SELECT count(*) FROM dramatiq.queue",
        jobs=1_000,
    )
