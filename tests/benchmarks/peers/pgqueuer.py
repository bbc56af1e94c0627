"""PgQueuer over asyncpg, as its documentation has it; its jobs are coroutines, ten to a batch, and as many run as there are.

Its worker is run as its command runs it, which with the newest Typer does not start.
"""

from .peer import Peer

SOURCE = """
    import os
    import asyncpg
    import uvloop
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.db import AsyncpgDriver
    from tests.benchmarks.job import job

    loop = uvloop.new_event_loop()


    async def connected():
        return AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"]))


    async def main():
        queuer = PgQueuer(await connected())

        @queuer.entrypoint("noop")
        async def noop(_):
            job()

        await queuer.run()


    def setup():
        global queries
        queries = Queries(loop.run_until_complete(connected()))
        loop.run_until_complete(queries.install())


    def send(count):
        async def enqueue():
            for _ in range(count):
                await queries.enqueue("noop", None)

        loop.run_until_complete(enqueue())


    def send_many(count):
        loop.run_until_complete(queries.enqueue(["noop"] * count, [None] * count, [0] * count))


    def load(count):
        if count:
            send_many(count)


    if __name__ == "__main__":
        uvloop.run(main())
"""


def pgqueuer() -> Peer:
    return Peer(
        "pgqueuer",
        SOURCE,
        ("app",),
        open="SELECT count(*) FROM pgqueuer",
    )
