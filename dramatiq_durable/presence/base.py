"""What a monitor asks of a broker, and what one answers of which nothing is known."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

import dramatiq

from ..store import Stale, Store

#: Audits that are read at a time.
BATCH = 500


class Answer(enum.Enum):
    WAITS = "a copy is in its queue"
    DELAYED = "a copy is in the delay queue, where those that are due do not stay"
    FETCHED = "a worker has fetched a copy, and is busy with others, or has lost it"
    GONE = "no copy waits in the broker"
    UNKNOWN = "the broker cannot tell"


class Presence:
    """A broker that cannot tell what has become of its messages."""

    def look(self, *, read_only: bool = False) -> None:
        """Look at the broker, once a pass.  Never raises: a broker that does not answer tells nothing."""

    def expect(self) -> None:
        """Take what the broker does not have at the first look for lost, for it may have been lost before."""

    def ask(self, audits: Sequence[Stale]) -> list[Answer]:
        """What has become of the newest copy of each of *audits*.  Never raises."""
        return [Answer.UNKNOWN] * len(audits)

    def lost(self, store: Store) -> Iterator[list[Stale]]:
        """The audits whose copies the broker has lost, though they are not stale yet; batch by batch."""
        return iter(())

    def settle(self) -> None:
        """All that was :meth:`lost` at the last look is sent again, in each store."""


def queues_of(stale: Stale, broker: dramatiq.Broker) -> set[str]:
    """The queues that its copies may be in: the one it was sent to, and the one its actor has now."""
    actor = broker.actors.get(stale.actor_name)
    return {stale.queue_name} if actor is None else {stale.queue_name, actor.queue_name}
