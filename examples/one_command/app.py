"""Workers and their monitor by one command; README.md says how."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from dramatiq_durable import DurableMiddleware, Monitor, durable_actor

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://localhost"))
broker.add_middleware(DurableMiddleware("sqlite:///jobs.db"))
dramatiq.set_broker(broker)


@durable_actor(heartbeat_interval=1_000)  # so that a lease lasts four seconds
def count(number):
    print(f"process {os.getpid()} begins to count to {number}", flush=True)
    for _ in range(number):
        time.sleep(1)
    print(f"process {os.getpid()} has counted to {number}", flush=True)


def run_monitor():
    Monitor(broker).run()
