"""What nobody can go below who writes that row and sends that message."""

from .ours import TITLES
from .peer import Peer

SOURCE = """
    import os
    import uuid
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware, durable_actor

    broker = RedisBroker(url=os.environ["BROKER_URL"])
    dramatiq.set_broker(broker)

    stub = StubBroker()
    durable = DurableMiddleware(os.environ["DATABASE_URL"])
    stub.add_middleware(durable)
    database = durable.database


    @dramatiq.actor
    def noop():
        pass


    @durable_actor(broker=stub)
    def example():
        pass


    def setup():
        global row, insert
        durable.create_tables()
        example.send()
        cursor = database.execute_sql("SELECT * FROM durable_audits")
        values = dict(zip([column[0] for column in cursor.description], cursor.fetchone()))
        row = {name: value for name, value in values.items() if name != "id" and value is not None}
        places = ", ".join([database.param] * len(row))
        insert = f"INSERT INTO durable_audits ({', '.join(row)}) VALUES ({places})"


    def send(count):
        connection = database.connection()  # the driver's own
        for _ in range(count):
            message = noop.message()
            now = {**row, "message_id": message.message_id, "payload": message.encode()}
            connection.cursor().execute(insert, list(now.values()))
            broker.enqueue(message)
"""


def floor(database: str) -> Peer:
    return Peer(f"floor, {TITLES[database]}", SOURCE, database=database)
