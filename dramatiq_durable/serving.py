"""What serves the runs of this process: a keeper for each database, a claimer for each table."""

from __future__ import annotations

import time

from .claimer import Claimer
from .connections import Connections
from .keeper import Keeper
from .store import Store


class Serving:
    """A database that does not answer holds up no other."""

    def __init__(self) -> None:
        self._keepers: dict[Connections, Keeper] = {}
        self._claimers: dict[Store, Claimer] = {}

    def keeper(self, store: Store) -> Keeper:
        """The keeper of the database of *store*; it runs."""
        keeper = self._keepers.get(store.connections)
        if keeper is None:
            keeper = self._keepers.setdefault(store.connections, Keeper())
        keeper.start()
        return keeper

    def claimer(self, store: Store) -> Claimer:
        claimer = self._claimers.get(store)
        if claimer is None:
            claimer = self._claimers.setdefault(store, Claimer(store))
        return claimer

    def flush(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until the keepers have written what they were given."""
        end = time.monotonic() + timeout
        return all(keeper.flush(end - time.monotonic()) for keeper in self._keepers.values())
