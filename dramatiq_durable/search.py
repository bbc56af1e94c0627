"""What the broker has lost, searched for in all stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .presence import Presence
from .store import Stale, Store


class Search:
    """A look at the broker, and the audits that it has lost; it may take several passes to go through them.

    One that was given is not given again, for what was sent meanwhile may look lost once more.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._batches: dict[Any, Iterator[list[Stale]]] = {}  # by table
        self._given: dict[Any, Ids] = {}
        self._put_back: dict[Any, list[Stale]] = {}
        self._done: set[Any] = set()

    def begin(self, *, read_only: bool) -> None:
        """Look, unless what was found at an earlier look is not dealt with yet."""
        if not self._batches:
            self._presence.look(read_only=read_only)

    def next_batch(self, store: Store) -> list[Stale] | None:
        """What is lost, or what is left of it; None when all that was found is dealt with."""
        table = store.audit
        if table in self._put_back:
            return self._put_back.pop(table)
        batch = next(self._batches.setdefault(table, self._presence.lost(store)), None)
        if batch is None:
            self._done.add(table)
            return None
        given = self._given.setdefault(table, Ids())
        return [stale for stale in batch if given.add(stale.id)]

    def put_back(self, store: Store, batch: list[Stale]) -> None:
        """Give *batch* once more with the next pass; what of it was sent is not as it was read any more."""
        self._put_back[store.audit] = batch

    def give_up(self) -> None:
        """Begin again with the next pass."""
        for of_tables in (self._batches, self._given, self._put_back):
            of_tables.clear()
        self._done.clear()

    def end(self, stores: Sequence[Store]) -> None:
        """End the pass; when all *stores* are searched, so that the next one may look again."""
        if {store.audit for store in stores} <= self._done:
            self._presence.settle()
            self.give_up()


class Ids:
    """A set of numbers, of which many follow one another: a bit each."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """False when it was there already."""
        block, bit = number >> 10, 1 << (number & 1023)
        before = self._blocks.get(block, 0)
        self._blocks[block] = before | bit
        return not before & bit
