"""A worker that counts, and jobs to be counted."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.prometheus import Prometheus

from dramatiq_durable import DurableMiddleware, durable_actor

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
broker.add_middleware(Prometheus())
broker.add_middleware(DurableMiddleware("sqlite:///jobs.db"))
dramatiq.set_broker(broker)


@durable_actor
def charge(order_id):
    print(f"order {order_id} is charged", flush=True)
