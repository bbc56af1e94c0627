"""DBOS: a workflow of no steps, enqueued to a queue that has no limits; eight threads run what it takes.

It takes all that wait at once, before the first one starts, so that this is not part of what is measured.
"""

from .peer import Peer

SOURCE = """
    import os
    import threading
    from dbos import DBOS, DBOSClient
    from tests.benchmarks.job import job

    URL = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")


    @DBOS.workflow()
    def noop():
        job()


    def started():
        DBOS(config={"name": "benchmark", "system_database_url": URL, "max_executor_threads": 8})
        DBOS.launch()


    def setup():
        global client
        started()
        DBOS.destroy()
        client = DBOSClient(system_database_url=URL)
        client.register_queue("jobs")


    def send(count):
        for _ in range(count):
            client.enqueue({"queue_name": "jobs", "workflow_name": "noop"})


    if __name__ == "__main__":
        started()
        threading.Event().wait()
"""


def dbos() -> Peer:
    return Peer(
        "dbos",
        SOURCE,
        ("app",),
        open="SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')",
        jobs=500,
    )
