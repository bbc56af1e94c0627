"""The pushes of many messages whose audits are committed: nothing that goes wrong with them is the sender's to mend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dramatiq
from dramatiq.logging import get_logger

from .errors import reason
from .outages import NotTried, is_outage
from .pipelining import Call, Pipelining
from .store import NewAudit, Store
from .underway import Hooks, Message

logger = get_logger(__name__)

LEFT = "Messages are left to the monitor"


@dataclass(frozen=True)
class Sent:
    """A message on its way: its audit, and how it is pushed."""

    new: NewAudit
    delay: int | None
    calls: Sequence[Call]
    encoded: bytes | None  # None: the calls have it, and for all else the audit's payload will do
    after: Sequence[tuple[bytes, int | None]]  # what the hooks are told after the push

    @property
    def message(self) -> Message:
        return dramatiq.Message.decode(self.encoded or self.new.payload)


class BulkPushes:
    """Pushes *parts*, which have *count* messages."""

    def __init__(
        self,
        hooks: Any,
        broker: dramatiq.Broker,
        store: Store,
        parts: Iterable[list[Sent]],
        count: int,
    ) -> None:
        self._hooks: Hooks = hooks
        self._pipelining: Pipelining = hooks.pipelining
        self._broker = broker
        self._store = store
        self._parts = parts
        self._count = count
        self._reached = True
        self.audited = True  # False: audit_failed() lets them go without audits
        self.was_out = False  # the audits were inserted as if the pushes were under way
        self.there: set[str] = set()  # messages that had their audits before
        self.elect_after = 0.0  # seconds

    def run(self, began: float, progress: Callable[[int, int], object]) -> None:
        """Push them; *began* on the monotonic clock when their audits were inserted.

        Raises:
          Exception: What an override of ``enqueue_failed`` has raised first, after all were pushed.
        """
        sent = 0
        raised: list[Exception] = []
        for part in self._parts:
            elects = self.audited and time.monotonic() - began >= self.elect_after
            self._push(part, elects, raised)
            sent += len(part)
            best_effort("Progress failed", progress, self._count, sent)
        if raised:
            raise raised[0]

    def _push(self, part: list[Sent], elects: bool, raised: list[Exception]) -> None:
        mine = self._elected(part) if elects else part
        if not mine:
            return
        errors = self._push_all(mine) if self._reached else [NotTried()] * len(mine)
        failed = [(each, error) for each, error in zip(mine, errors, strict=True) if error]
        # A broker that takes none of them is not asked once more for each of the others.
        self._reached = self._reached and len(failed) < len(mine)
        if elects:
            pushed = [each.new for each, error in zip(mine, errors, strict=True) if not error]
            if pushed:
                best_effort(LEFT, self._store.all_pushed, pushed)
        refused = [each.new for each, _ in failed if each.new.message_id not in self.there]
        if refused and self.audited:
            best_effort(LEFT, self._store.all_refused, refused)
        for each, error in failed:
            try:
                self._hooks.enqueue_failed(self._broker, each.message, error)
            except Exception as second:  # noqa: BLE001 - it reaches the sender when all are pushed
                raised.append(second)

    def _elected(self, part: list[Sent]) -> list[Sent]:
        """Those that no monitor has sent meanwhile."""
        news = [each.new for each in part]
        elected = best_effort(LEFT, self._store.begin_pushes, news, was_out=self.was_out) or ()
        return [each for each in part if each.new.message_id in elected]

    def _push_all(self, part: list[Sent]) -> Sequence[Exception | None]:
        if all(each.encoded is None for each in part):
            return self._send(part)
        errors: list[Exception | None] = []
        for each in part:
            if errors and is_outage(errors[-1]):
                errors.append(NotTried())
            else:
                errors += self._send([each]) if each.encoded is None else [self._push_one(each)]
        return errors

    def _send(self, part: list[Sent]) -> list[Exception | None]:
        errors = self._pipelining.send([each.calls for each in part])
        for each, error in zip(part, errors, strict=True):
            if error is None and each.after:
                after = [(dramatiq.Message.decode(data), delay) for data, delay in each.after]
                self._pipelining.pushed(after)
        return errors

    def _push_one(self, sent: Sent) -> Exception | None:
        try:
            self._pipelining.push(sent.message, delay=sent.delay)
        except Exception as error:  # noqa: BLE001 - whatever a broker raises, the audit is written
            return error
        return None


def best_effort(what: str, do: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The audits are committed, and due later anyway: no error must make the sender believe in a failure."""
    try:
        return do(*args, **options)
    except Exception as error:  # noqa: BLE001 - as above
        logger.warning("%s: %s", what, reason(error))
        return None
