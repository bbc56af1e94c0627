"""A job that is sent inside a transaction: it runs if that commits, and never after a rollback."""

from __future__ import annotations

import tempfile

import dramatiq
import peewee
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, durable_actor

folder = tempfile.TemporaryDirectory()
db = peewee.SqliteDatabase(f"{folder.name}/shop.db", pragmas={"journal_mode": "wal"})
broker = StubBroker()
durable = DurableMiddleware(db)
broker.add_middleware(durable)
dramatiq.set_broker(broker)


class Order(peewee.Model):
    id = peewee.AutoField()
    item = peewee.TextField()

    class Meta:
        database = db


class OutOfStock(Exception):
    pass


@durable_actor
def ship(order_id: int) -> None:
    print(f"shipped order {order_id}: {Order.get_by_id(order_id).item}")


def place(item: str, stock: set[str]) -> None:
    with db.atomic():
        order = Order.create(item=item)
        ship.send(order.id)  # a row of this transaction; the broker sees it after the commit
        if item not in stock:
            raise OutOfStock(item)


def main() -> None:
    durable.create_tables()
    db.create_tables([Order])
    for item in ("teapot", "unicorn", "kettle"):
        try:
            place(item, stock={"teapot", "kettle"})
        except OutOfStock:
            print(f"rolled back: no {item}")

    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()
    broker.join(ship.queue_name)
    worker.join()
    worker.stop()
    print(f"{Order.select().count()} orders, and a job for each")


if __name__ == "__main__":
    main()
