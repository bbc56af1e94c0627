"""Cases that are measured in turn, A B C A B C ..., so that what slows the machine slows them all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 5


def in_turn(
    cases: Mapping[str, Callable[[], T]], rounds: int = ROUNDS, warm_up: bool = True
) -> dict[str, list[T]]:
    """What each case has returned in each round; a first one, to *warm_up*, does not count."""
    if warm_up:
        for case in cases.values():
            case()
    results: dict[str, list[T]] = {name: [] for name in cases}
    for number in range(rounds):
        # The one that goes first in a round meets other caches than those that follow.
        shift = number % len(cases)
        names = list(cases)
        for name in names[shift:] + names[:shift]:
            results[name].append(cases[name]())
    return results


class Spread:
    """Several measurements of one thing: as text its median, and its least and greatest."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(values)
        self.median = statistics.median(self.values)
        self.least, self.greatest = min(self.values), max(self.values)

    def over(self, other: Spread) -> Spread:
        """The ratios, round by round."""
        return Spread(
            [mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)]
        )

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.greatest)})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown, as the README has it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
