"""TimeLimitExceeded in the middle of our code: after some time, or at each point in turn."""

import dis
import functools
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import dramatiq
import pytest
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.threading import raise_thread_exception

import dramatiq_durable

_OURS = str(Path(dramatiq_durable.__file__).parent)
_OTHERS = (str(Path(dramatiq.__file__).parent), str(Path(__file__).parent))

# After these instructions Python looks for exceptions raised by other threads.
_LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")

# What Peewee does beside making text of queries.
_ON_CONNECTIONS = {
    "__enter__", "__exit__", "_connect", "_execute", "_execute_cursor", "close", "connect",
    "cursor", "execute", "execute_sql", "reset", "set_connection",
}  # fmt: skip


#: Of tests that use Strike.
needs_the_trace = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython loses its trace of opcodes, or crashes, in inlined comprehensions",
)


def strike_after(seconds):
    """Raise TimeLimitExceeded in this thread after *seconds*, wherever it is then."""
    target = threading.get_ident()
    threading.Timer(seconds, raise_thread_exception, (target, TimeLimitExceeded)).start()


class Strike:
    """Raises TimeLimitExceeded at the *point*-th place, from 1, where one can strike code of ours.

    Without *point* it counts the places.
    """

    def __init__(self, point=None):
        self.point = point
        self.passed = 0

    @contextmanager
    def armed(self):
        """In this thread, until the strike."""
        self.begin()
        try:
            yield self
        finally:
            self.end()

    def begin(self):
        sys.settrace(self._called)

    def end(self):
        sys.settrace(None)

    def _called(self, frame, event, _):
        if not _is_ours(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._executes

    def _executes(self, frame, event, _):
        if event == "opcode" and frame.f_lasti in _looking(frame.f_code):
            self.passed += 1
            if self.passed == self.point:
                self.end()
                raise TimeLimitExceeded
        return self._executes


def points(act):
    """At how many places *act* can be struck."""
    with Strike().armed() as strike:
        act()
    return strike.passed


def _is_ours(frame):
    """Whether *frame* is our code, or what that calls without Dramatiq in between."""
    code = frame.f_code
    if code.co_filename.startswith("<frozen"):
        return False  # struck where C calls it, as isinstance() does with an ABC, CPython 3.11 may crash
    if code.co_filename.endswith("peewee.py") and code.co_name not in _ON_CONNECTIONS:
        return False
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS):
            return True
        if name.startswith(_OTHERS):
            return False
        frame = frame.f_back
    return False


@functools.cache
def _looking(code):
    """The instructions of *code* before which Python looks for an exception."""
    found, looked = set(), False
    for instruction in dis.get_instructions(code):
        if looked:
            found.add(instruction.offset)
        looked = instruction.opname.startswith(_LOOKS)
    return found
