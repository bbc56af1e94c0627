"""Claims of many worker threads in few statements."""

from __future__ import annotations

import enum
import queue
import time
from collections import deque
from contextlib import suppress
from typing import TypeAlias

from dramatiq.logging import get_logger

from .errors import reason
from .store import CLAIMS, Claim, Held, Store

#: Seconds after which one who waits looks around; in a longer wait no interrupt would strike.
STEP = 0.05

#: Seconds after which one whose claim another has taken on makes it by itself, too: that other may have been interrupted.
PATIENCE = 1.0


class _Alone(enum.Enum):
    """Something is wrong with a claim, or with one beside it: make it by yourself."""

    ALONE = enum.auto()


ALONE = _Alone.ALONE

Answer: TypeAlias = "Held | _Alone | None"

logger = get_logger(__name__)


class _Request:
    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        #: The answers of whoever has taken it on, or an invitation to look around.
        self.answers: queue.SimpleQueue[Answer | _LookAround] = queue.SimpleQueue()


class _LookAround:
    pass


class Claimer:
    """Claims the jobs of one table for the worker threads of this process.

    A thread that finds a free connection claims for itself, and in the same statement for all who
    wait; so the threads share few connections, however many they are and however far the database is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Request] = deque()

    def claim(self, claim: Claim) -> Held | None:
        """As :meth:`Store.claim`."""
        request = _Request(claim)
        try:
            self._waiting.append(request)
            answer = self._answer(request)
        except BaseException:
            self._forget(request)
            raise
        if isinstance(answer, _Alone):
            return claim.held if self._store.claim_all([claim]) else None
        return answer

    def _answer(self, request: _Request) -> Answer:
        end = time.monotonic() + PATIENCE
        while True:
            if self._waiting and self._store.connections.has_room():
                self._serve()
            with suppress(queue.Empty):
                answer = request.answers.get(timeout=STEP)
                if not isinstance(answer, _LookAround):
                    return answer
            if time.monotonic() > end and request not in self._waiting:
                return ALONE

    def _forget(self, request: _Request) -> None:
        """So that it is not claimed later: whoever asks the database from now on hears the last word."""
        try:
            self._waiting.remove(request)
        except ValueError:
            with suppress(queue.Empty):
                request.answers.get(timeout=PATIENCE)

    def _serve(self) -> None:
        part = self._part()
        if not part:
            return
        answers: list[Answer] = [ALONE] * len(part)
        try:
            answers = self._claimed(part)
        except Exception as error:
            logger.debug("Claims are made one by one: %s", reason(error))
        finally:
            for request, answer in zip(part, answers, strict=True):
                request.answers.put(answer)
            with suppress(IndexError):
                self._waiting[0].answers.put(_LookAround())

    def _part(self) -> list[_Request]:
        """Those who wait, of each message one."""
        part: dict[str, _Request] = {}
        with suppress(IndexError):
            while len(part) < CLAIMS:
                request = self._waiting.popleft()
                if request.claim.message_id in part:
                    self._waiting.appendleft(request)
                    break
                part[request.claim.message_id] = request
        return list(part.values())

    def _claimed(self, part: list[_Request]) -> list[Answer]:
        held = self._store.claim_all([each.claim for each in part])
        return [each.claim.held if each.claim.held in held else None for each in part]
