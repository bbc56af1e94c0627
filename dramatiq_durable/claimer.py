"""Claims of many worker threads in few statements."""

from __future__ import annotations

import enum
import os
import queue
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TypeAlias

from dramatiq.logging import get_logger

from .errors import reason
from .receiving import receive
from .store import CLAIMS, Claim, Held, Store

#: Seconds after which one who waits looks around; in a longer wait no interrupt would strike.
STEP = 0.05

#: Seconds after which one who waits makes the claim by itself, too: who has taken it on may have been interrupted.
PATIENCE = 1.0


class _Word(enum.Enum):
    """What one who waits is told instead of an answer."""

    #: Something is wrong with this claim, or with one beside it: make it by yourself.
    ALONE = enum.auto()
    #: A connection may be free.
    LOOK = enum.auto()


Answer: TypeAlias = "Held | _Word | None"

logger = get_logger(__name__)


class _Request:
    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.given_up = False
        self.answered = False
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()


class Claimer:
    """Claims the jobs of one table for the worker threads of this process.

    A thread that finds a free connection claims for itself, and in the same statement for all who
    wait; so the threads share few connections, however many they are and however far the database is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Request] = deque()
        forget = weakref.WeakMethod(self._forget_all)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def claim(self, claim: Claim) -> Held | None:
        """As :meth:`Store.claim`."""
        request = _Request(claim)
        try:
            self._waiting.append(request)
            answer = self._answer(request)
        except BaseException:
            request.given_up = True
            self._settle(request)
            raise
        if isinstance(answer, _Word):
            return claim.held if self._store.claim_all([claim]) else None
        return answer

    def _forget_all(self) -> None:
        # They are of threads that a child has not.
        self._waiting.clear()

    def _answer(self, request: _Request) -> Answer:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self._waiting and self._store.connections.has_room():
                self._serve()
            with suppress(queue.Empty):
                answer = receive(request.answers, STEP)
                request.answered = answer is not _Word.LOOK
                if request.answered:
                    return answer
        with suppress(ValueError):
            self._waiting.remove(request)
        return _Word.ALONE

    def _settle(self, request: _Request) -> None:
        """So that it is not claimed later: whoever asks the database from now on hears the last word."""
        try:
            self._waiting.remove(request)
        except ValueError:
            self._hear_out(request)

    def _hear_out(self, request: _Request) -> None:
        end = time.monotonic() + PATIENCE
        while not request.answered and time.monotonic() < end:
            with suppress(queue.Empty):
                request.answered = receive(request.answers, STEP) is not _Word.LOOK

    def _serve(self) -> None:
        part: dict[str, _Request] = {}
        answers: dict[str, Answer] = {}
        try:
            self._take(part)
            if part:
                claims = [request.claim for request in part.values()]
                held = self._store.claim_all(claims)
                answers = {c.message_id: c.held if c.held in held else None for c in claims}
        except Exception as error:
            logger.debug("Claims are made one by one: %s", reason(error))
        finally:
            for message_id, request in part.items():
                request.answers.put(answers.get(message_id, _Word.ALONE))
            with suppress(IndexError):
                self._waiting[0].answers.put(_Word.LOOK)

    def _take(self, part: dict[str, _Request]) -> None:
        """Fill *part* with those who wait, of each message one."""
        with suppress(IndexError):
            while len(part) < CLAIMS:
                request = self._waiting.popleft()
                if request.claim.message_id in part:
                    self._waiting.appendleft(request)
                    return
                if not request.given_up:
                    part[request.claim.message_id] = request
