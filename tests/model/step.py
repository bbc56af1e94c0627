"""One step: who did what."""

from __future__ import annotations

from typing import NamedTuple

from .state import Copy

#: Budgets that limit the search, but are no faults: a path to the end of the job may use them.
NO_FAULTS = frozenset(("backlog",))


class Step(NamedTuple):
    who: str
    what: str  # the name of a transition, or what else happens
    claim_id: int = 0  # of the one who writes
    copy: Copy | None = None
    refused: bool = False
    spend: str = ""  # the budget that it is taken from

    @property
    def is_fault(self) -> bool:
        return bool(self.spend) and self.spend not in NO_FAULTS

    def __str__(self) -> str:
        who = f"{self.who} {self.claim_id}" if self.claim_id else self.who
        copy = "" if self.copy is None else f" with the copy of epoch {self.copy.epoch}"
        fault = "FAULT " if self.is_fault else ""
        return f"{fault}{who}: {self.what}{copy}{' (refused)' if self.refused else ''}"
