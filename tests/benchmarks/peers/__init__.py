"""What is measured beside each other: this library, what it is compared with, and at their defaults other queues."""

from .celery import celery
from .dbos import dbos
from .django_dramatiq import django_dramatiq
from .dramatiq_postgres import dramatiq_postgres
from .floor import floor
from .ours import ours
from .peer import Peer
from .pgqueuer import pgqueuer
from .plain import plain
from .procrastinate import procrastinate

__all__ = ["BULK_SENDERS", "SENDERS", "WORKERS", "Peer", "floor", "ours", "plain"]

_OTHERS = [
    procrastinate(),
    pgqueuer(),
    dramatiq_postgres(),
    dbos(),
    celery(),
    django_dramatiq(),
]

_DATABASES = ("postgres", "mariadb", "sqlite")

SENDERS = [
    plain(),
    *(make(database) for database in _DATABASES for make in (floor, ours)),
    *_OTHERS,
]

BULK_SENDERS = [
    plain(),
    *map(ours, _DATABASES),
    procrastinate(),
    pgqueuer(),
]

WORKERS = [
    plain(),
    *(ours(database) for database in _DATABASES),
    plain(prefetch=256),
    *(ours(database, prefetch=256) for database in _DATABASES),
    *_OTHERS,
]
