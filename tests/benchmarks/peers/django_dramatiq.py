"""Dramatiq with django_dramatiq's AdminMiddleware: a row per task for its admin page, which nothing is recovered from.

Connections are kept, where Django's default is a new one for each task.
"""

from .peer import Peer, dramatiq_worker

SOURCE = """
    import os
    import sys
    from urllib.parse import urlsplit
    import django
    from django.conf import settings

    database = urlsplit(os.environ["DATABASE_URL"])
    middleware = [f"dramatiq.middleware.{name}" for name in ("AgeLimit", "TimeLimit", "Callbacks", "Retries")]
    settings.configure(
        INSTALLED_APPS=["django_dramatiq"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": database.hostname,
                "PORT": database.port,
                "USER": database.username,
                "NAME": database.path[1:],
                "CONN_MAX_AGE": None,
            }
        },
        DRAMATIQ_BROKER={
            "BROKER": "dramatiq.brokers.redis.RedisBroker",
            "OPTIONS": {"url": os.environ["BROKER_URL"]},
            "MIDDLEWARE": [
                *middleware,
                "django_dramatiq.middleware.AdminMiddleware",
                "django_dramatiq.middleware.DbConnectionsMiddleware",
            ],
        },
    )
    django.setup()

    import dramatiq
    from tests.benchmarks.job import job

    broker = dramatiq.get_broker()


    @dramatiq.actor
    def noop():
        job()


    def setup():
        from django.core.management import call_command
        call_command("migrate", verbosity=0)


    def send(count):
        for _ in range(count):
            noop.send()
"""


def django_dramatiq() -> Peer:
    return Peer(
        "django_dramatiq",
        SOURCE,
        dramatiq_worker(),
        open="SELECT count(*) FROM django_dramatiq_task WHERE status IN ('enqueued', 'running')",
        jobs=1_000,
    )
