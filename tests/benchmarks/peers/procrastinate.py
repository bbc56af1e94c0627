"""Procrastinate, with its jobs in PostgreSQL; it keeps those that are done, as by default."""

from .peer import Peer

SOURCE = """
    import os
    import procrastinate
    from tests.benchmarks.job import job

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))


    @app.task
    def noop():
        job()


    def setup():
        app.open()
        app.schema_manager.apply_schema()


    def send(count):
        for _ in range(count):
            noop.defer()


    def send_many(count):
        noop.batch_defer(*[{}] * count)


    def load(count):
        if count:
            send_many(count)
"""


def procrastinate() -> Peer:
    return Peer(
        "procrastinate",
        SOURCE,
        ("procrastinate", "--app", "app.app", "worker", "--concurrency", "8"),
        open="SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        jobs=1_000,
    )
