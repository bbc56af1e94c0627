"""A longer way to a server: ``python -m tests.benchmarks.line URL MILLISECONDS``, in a process of its own."""

from __future__ import annotations

import sys
import time

from tests.support.proxy import Proxy


def main(url: str, milliseconds: str) -> None:
    """Print the URL by which the server is so much farther, there and back, and stay."""
    proxy = Proxy(url)
    proxy.delay = float(milliseconds) / 1000 / 2
    print(proxy.url, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
