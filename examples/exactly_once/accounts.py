"""Effects in the audit's own database: the booking and the end of the job are one commit."""

from __future__ import annotations

import tempfile

import dramatiq
import peewee
from dramatiq.brokers.stub import StubBroker

from dramatiq_durable import DurableMiddleware, current_audit, durable_actor

folder = tempfile.TemporaryDirectory()
db = peewee.SqliteDatabase(f"{folder.name}/bank.db", pragmas={"journal_mode": "wal"})
broker = StubBroker()
durable = DurableMiddleware(db)
broker.add_middleware(durable)
dramatiq.set_broker(broker)


class Account(peewee.Model):
    id = peewee.AutoField()
    balance = peewee.IntegerField()

    class Meta:
        database = db


starts = 0


@durable_actor(min_backoff=1)
def withdraw(account_id: int, amount: int) -> None:
    global starts
    starts += 1
    audit = current_audit()
    assert audit is not None  # it is None when the function is called, not sent
    with audit.transaction():
        Account.update(balance=Account.balance - amount).where(Account.id == account_id).execute()
        if starts == 1:
            raise ConnectionError("the first run fails after its booking")


def main() -> None:
    durable.create_tables()
    db.create_tables([Account])
    account = Account.create(balance=100)
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()

    message = withdraw.send(account.id, 30)
    run_what_waits(worker)
    broker.enqueue(message)  # a broker may deliver twice
    run_what_waits(worker)
    worker.stop()
    print(f"started {starts} times, balance {Account.get_by_id(account.id).balance}")


def run_what_waits(worker: dramatiq.Worker) -> None:
    broker.join(withdraw.queue_name)
    worker.join()


if __name__ == "__main__":
    main()
