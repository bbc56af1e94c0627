"""What the broker has lost, searched for in all stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from .presence import Presence
from .store import Stale, Store


class Search:
    """A look at the broker, and the audits that it has lost; it may take several passes to go through them."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._batches: dict[Any, Iterator[list[Stale]]] = {}  # by table
        self._done: set[Any] = set()

    def begin(self, *, read_only: bool) -> None:
        """Look, unless what was found at an earlier look is not dealt with yet."""
        if not self._batches:
            self._presence.look(read_only=read_only)

    def next_batch(self, store: Store) -> list[Stale] | None:
        """What is lost, or what is left of it; None when all that was found is dealt with."""
        table = store.audit
        batch = next(self._batches.setdefault(table, self._presence.lost(store)), None)
        if batch is None:
            self._done.add(table)
        return batch

    def put_back(self, store: Store, batch: list[Stale]) -> None:
        """Give *batch* once more with the next pass; what of it was sent is not as it was read any more."""
        self._batches[store.audit] = chain([batch], self._batches[store.audit])

    def give_up(self) -> None:
        """Begin again with the next pass."""
        self._batches.clear()
        self._done.clear()

    def end(self, stores: Sequence[Store]) -> None:
        """End the pass; when all *stores* are searched, so that the next one may look again."""
        if {store.audit for store in stores} <= self._done:
            self._presence.settle()
            self.give_up()
