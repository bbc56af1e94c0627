"""Celery with ``acks_late``, so that what a killed worker ran comes back; no result backend, as by default.

Its worker has threads here, where the default is as many processes.
"""

from .peer import Peer

SOURCE = """
    import os
    import celery
    from tests.benchmarks.job import job

    app = celery.Celery("benchmark", broker=os.environ["BROKER_URL"])
    app.conf.task_acks_late = True


    @app.task
    def noop():
        job()


    def setup():
        pass


    def send(count):
        for _ in range(count):
            noop.delay()
"""


def celery() -> Peer:
    worker = ("celery", "--app", "app", "worker", "--pool", "threads", "--concurrency", "8")
    return Peer("celery, acks_late", SOURCE, worker, database="")
