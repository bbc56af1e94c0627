"""What doctor asks the broker."""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

from ..outages import is_outage
from ..receiving import receive
from .findings import Examined, Finding, fine, unreachable, wrong

#: Seconds that a broker has for its answer; its client may wait for ever.
ANSWERS_WITHIN = 10.0


def broker_of(examined: Examined) -> dramatiq.Broker:
    assert examined.middleware.broker is not None
    return examined.middleware.broker


def check_broker(examined: Examined) -> Iterator[Finding]:
    try:
        answered = _asked(broker_of(examined))
    except Exception as error:
        if not _is_down(error):
            raise
        says = f"it does not answer ({type(error).__name__})"
        yield unreachable("broker", says, "check that it runs, and its address and password")
        return
    refused = [seen for seen in examined.running if seen.monitor.outage and not seen.stopped]
    for seen in refused:
        yield wrong(
            "broker",
            f"by the last pass of monitor {seen} it takes no messages",
            "the monitor's log says why; a Redis that is full answers all the same",
        )
    if not refused:
        yield fine("broker", "it answers" if answered else "of its kind nobody can ask")


def check_confirms(examined: Examined) -> Iterator[Finding]:
    # Only RabbitMQ's has it.
    confirms = getattr(broker_of(examined), "confirm_delivery", None)
    if confirms is False:
        yield wrong(
            "confirms",
            "RabbitMQ does not say that it dropped a message, and its job starts job_timeout and backoff too late",
            "make the RabbitmqBroker with confirm_delivery=True",
        )
    elif confirms is not None:
        yield fine("confirms", "RabbitMQ says when it drops a message")


def check_retries(examined: Examined) -> Iterator[Finding]:
    if any(isinstance(each, Retries) for each in broker_of(examined).middleware):
        yield fine("retries", "the broker has Dramatiq's Retries")
    else:
        yield wrong(
            "retries",
            "without Dramatiq's Retries a job that raises waits for a monitor and the backoff, a minute at least",
            "add dramatiq.middleware.Retries to the broker",
        )


def _asked(broker: dramatiq.Broker) -> bool:
    """Whether there was a way to ask *broker*, which then answered.

    Raises:
      TimeoutError: It did not, in good time.
    """
    answers: queue.SimpleQueue[bool | Exception] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(broker, answers), daemon=True).start()
    try:
        answer = receive(answers, ANSWERS_WITHIN)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ask(broker: dramatiq.Broker, answers: queue.SimpleQueue[bool | Exception]) -> None:
    try:
        answers.put(_answers(broker))
    except Exception as error:  # noqa: BLE001 - who waits for the answer raises it
        answers.put(error)


def _answers(broker: Any) -> bool:
    if isinstance(broker, RedisBroker):
        client: Any = broker.client
        client.ping()
        return True
    if _has_pika():
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        if isinstance(broker, RabbitmqBroker):
            _ = broker.connection  # connects, for in this thread there is none
            del broker.connection
            return True
    return False


def _is_down(error: Exception) -> bool:
    if is_outage(error):
        return True
    if not _has_pika():
        return False
    from pika.exceptions import AMQPError

    # Dramatiq makes its own of them where it enqueues and consumes, but not where it connects.
    return isinstance(error, AMQPError)


def _has_pika() -> bool:
    return importlib.util.find_spec("pika") is not None
