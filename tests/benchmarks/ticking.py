"""How late an event loop is while it sends; a program for a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .application import Application

SECONDS = 2
RATE = 50  # requests per second, each of which sends one message
TICK = 0.001
AT_ONCE = 1_000

Send = Callable[[int], Coroutine[Any, Any, Any]]


def main(way: str) -> None:
    """Print the lags of all ticks, in seconds, and how many messages per second are sent when there are many.

    *way*: ``send``, ``send_async``, or ``nothing``.
    """
    charge = Application().charge

    async def in_the_loop(number: int) -> None:
        charge.send(number)

    async def nothing(number: int) -> None:
        pass

    sends: dict[str, Send] = {
        "send": in_the_loop,
        "send_async": charge.send_async,
        "nothing": nothing,
    }
    print(json.dumps(asyncio.run(measured(sends[way]))))


async def measured(send: Send) -> tuple[list[float], float]:
    await asyncio.gather(*map(send, range(10)))  # they open the connections
    lags = await lags_while(requests(send))
    began = time.perf_counter()
    await asyncio.gather(*map(send, range(AT_ONCE)))
    return lags, AT_ONCE / (time.perf_counter() - began)


async def requests(send: Send) -> None:
    """They come at their times, whether those before them are done or not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number in range(RATE * SECONDS):
        await asyncio.sleep(began + number / RATE - loop.time())
        tasks.append(asyncio.create_task(send(number)))
    await asyncio.gather(*tasks)


async def lags_while(work: Coroutine[Any, Any, None]) -> list[float]:
    """How late each tick was, also of those that were due while nothing went on."""
    working = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    due, lags = loop.time(), []
    while not working.done():
        due += TICK
        await asyncio.sleep(due - loop.time())
        lags.append(max(loop.time() - due, 0.0))
    await working
    return lags
