"""``python -m tests.chaos.worker``: runs the jobs of the application until TERM."""

from __future__ import annotations

import logging
import signal
import threading

import dramatiq

from .app import broker

THREADS = 6


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    worker = dramatiq.Worker(broker, worker_timeout=200, worker_threads=THREADS)
    worker.start()
    stopped.wait()
    worker.stop()


if __name__ == "__main__":
    main()
