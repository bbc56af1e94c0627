"""An interrupt strikes a list on its way to RabbitMQ, at many points in turn; the next ones are none the worse for it.

In a process of its own: one that is struck in the wrong place may hang.
"""

import pytest

from .striking import needs_the_trace

pytestmark = [pytest.mark.failure(22), needs_the_trace]

SOURCE = """
    import os

    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.middleware import TimeLimitExceeded

    from dramatiq_durable import DurableMiddleware, durable_actor
    from tests.connections.striking import Strike, points

    STRIKES = 200


    class Strict(DurableMiddleware):
        def enqueue_failed(self, broker, message, error):
            raise error


    broker = RabbitmqBroker(url=os.environ["BROKER_URL"], confirm_delivery=True)
    durable = Strict()
    broker.add_middleware(durable)
    dramatiq.set_broker(broker)
    durable.create_tables()


    @durable_actor
    def charge(order_id):
        pass
"""

LISTS = """
    from app import *

    charge.send_many([(0,), (0,)])
    places = points(lambda: charge.send_many([(0,), (0,)]))
    struck = 0
    for point in range(1, places, places // STRIKES):
        try:
            with Strike(point).armed():
                charge.send_many([(point,), (point,)])
        except TimeLimitExceeded:
            struck += 1
        for _ in range(2):
            charge.send_many([(-point,)])
    assert struck >= STRIKES * 0.9, (struck, places)
"""


def test_a_list_may_be_struck_anywhere(app, rabbitmq_url, sqlite_url, rabbitmq_broker):
    program = app(SOURCE, BROKER_URL=rabbitmq_url, DRAMATIQ_DURABLE_DATABASE_URL=sqlite_url)
    done = program.python(LISTS)
    assert done.returncode == 0, done.stdout + done.stderr
