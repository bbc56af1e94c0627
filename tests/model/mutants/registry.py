"""What is known of each mutant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..promises import Broken
from ..protocol import Protocol


@dataclass(frozen=True)
class Mutant:
    """A protocol that differs from the product's in one thing, and how that is found out."""

    protocol: type[Protocol]
    space: str
    caught_by: Broken


MUTANTS: dict[str, Mutant] = {}


def caught(space: str, by: Broken) -> Callable[[type[Protocol]], type[Protocol]]:
    """The mutant must break the promise in that space, where the protocol breaks none."""

    def note(protocol: type[Protocol]) -> type[Protocol]:
        MUTANTS[protocol.__name__] = Mutant(protocol, space, by)
        return protocol

    return note
