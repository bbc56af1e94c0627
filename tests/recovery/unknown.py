"""A broker of which a monitor knows nothing: first in, first out, and no more."""

from collections import deque

import dramatiq
from dramatiq.common import current_millis, dq_name


class UnknownBroker(dramatiq.Broker):
    def __init__(self):
        super().__init__()
        self.line = deque()

    def declare_queue(self, queue_name):
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)
            self.delay_queues.add(dq_name(queue_name))
            self.emit_after("declare_delay_queue", dq_name(queue_name))

    def enqueue(self, message, *, delay=None):
        if delay is not None:
            message = message.copy(options={"eta": current_millis() + delay})
        self.emit_before("enqueue", message, delay)
        self.line.append(message.encode())
        self.emit_after("enqueue", message, delay)
        return message
