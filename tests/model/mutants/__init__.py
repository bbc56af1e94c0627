"""Protocols that break a promise, by the part of the store that they differ in."""

from . import monitoring, operating, sending, working
from .registry import MUTANTS

__all__ = ["MUTANTS", "monitoring", "operating", "sending", "working"]
