"""The app with dramatiq-durable; the times are short, so that the demo is."""

from __future__ import annotations

import os
from datetime import timedelta

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from work import compress_file

from dramatiq_durable import DurableMiddleware, durable_actor


def one_second(enqueue_count: int) -> timedelta:
    return timedelta(seconds=1)


broker = RedisBroker(url=os.environ["DEMO_BROKER_URL"])
broker.add_middleware(DurableMiddleware(backoff=one_second))  # DRAMATIQ_DURABLE_DATABASE_URL
dramatiq.set_broker(broker)


@durable_actor(job_timeout=15_000, heartbeat_interval=1_000)
def compress(path: str) -> None:
    compress_file(path)
