"""The app without dramatiq-durable."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from work import compress_file

broker = RedisBroker(url=os.environ["DEMO_BROKER_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def compress(path: str) -> None:
    compress_file(path)
