"""The reader of a pipe may close it before the command has written all."""

import os
import subprocess
import sys

import pytest

APP = """
    import os
    from dramatiq.brokers.stub import StubBroker
    from dramatiq_durable import DurableMiddleware

    broker = StubBroker()
    durable = DurableMiddleware(os.environ["SHOP_DATABASE"])
    broker.add_middleware(durable)
    durable.create_tables()
"""


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["status"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_broker_that_does_not_answer(app, sqlite_url, arguments):
    shop = app(APP, SHOP_DATABASE=sqlite_url)
    name, *options = arguments
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dramatiq_durable", name, "app:broker", *options],
            cwd=shop.folder,
            env=shop.environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
