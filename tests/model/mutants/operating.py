"""Mutants of the operator's transitions."""

from ..promises import Broken
from ..protocol import Protocol
from ..state import NOW
from .registry import caught


@caught("cancelled", Broken.OVERLAP)
class RetryAtOnce(Protocol):
    def retry(self, audit):
        back = super().retry(audit)
        return back and back._replace(due=NOW)


@caught("cancelled", Broken.SMALLER_TOKEN)
class RetryFromEpochZero(Protocol):
    def retry(self, audit):
        back = super().retry(audit)
        return back and back._replace(epoch=0)
