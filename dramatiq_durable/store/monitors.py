"""Which monitors run, as they say themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ..lanes import plain_of
from ..models import SeenMonitor
from .base import Base, materialised, microseconds
from .monitoring import moment
from .tables import Table

TABLE = "durable_monitors"

#: What was not seen for longer is forgotten when another monitor starts.
KEPT = timedelta(days=1)

#: How many are listed at most, those that were seen last.
MOST_LISTED = 100


@dataclass
class Presented:
    """What a monitor says of itself; the counts are those since it started."""

    id: str
    host: str
    pid: int
    version: str
    interval: timedelta
    recovered: int = 0
    dead: int = 0
    deleted: int = 0
    failed: int = 0
    outage: bool = False  # the broker took no messages in its last pass


@dataclass(frozen=True)
class Seen:
    """A monitor that was seen *ago*; by the database's clock."""

    monitor: Presented
    started_at: datetime
    ago: timedelta
    stopped: bool  # as it was told to, not killed

    def __str__(self) -> str:
        return f"{self.monitor.host}:{self.monitor.pid}"


class Monitors:
    """The table of monitors beside the audits of *store*."""

    def __init__(self, store: Base) -> None:
        self._store = store
        self.model: Any = _beside(store)

    @property
    def table(self) -> Table:
        """The table as this version wants it."""
        return Table(self.model, self._store.connections, ())

    def say(self, monitor: Presented, uptime: timedelta) -> None:
        """Write that *monitor*, which has run for *uptime*, is alive now."""
        columns = {
            **asdict(monitor),
            "interval": microseconds(monitor.interval),
            "seen_at": self._store.now(),
        }
        if self._execute(self.model.update(columns).where(self.model.id == monitor.id)):
            return
        new = self.model.insert(
            **columns, started_at=self._store.now(-uptime), namespace=self._store.namespace
        )
        self._execute(new.on_conflict_ignore())  # its answer may be lost, and it be sent again
        self._forget(monitor.host)

    def stop(self, monitor: Presented) -> None:
        """Write that it has stopped, as it was told to."""
        now = self._store.now()
        self._execute(
            self.model.update(seen_at=now, stopped_at=now).where(self.model.id == monitor.id)
        )

    def seen(self) -> list[Seen]:
        """The monitors of this namespace, those that were seen last first."""
        query = self.model.select(self.model, self._store.now().alias("clock"))
        query = query.where(self.model.namespace == self._store.namespace)
        rows = self._execute(query.order_by(self.model.seen_at.desc()).limit(MOST_LISTED))
        return [_seen(row) for row in rows]

    def _forget(self, host: str) -> None:
        """Delete those that are long gone, and those that have stopped on *host*, where another one starts."""
        model = self.model
        gone = (model.seen_at < self._store.now(-KEPT)) | (
            (model.host == host) & model.stopped_at.is_null(False)
        )
        self._execute(model.delete().where(model.namespace == self._store.namespace, gone))

    def _execute(self, query: Any) -> Any:
        # What is locked is asked for the next time.
        return self._store.connections.run(lambda lane: materialised(query.execute(lane)), {})


def _seen(row: Any) -> Seen:
    named = {name: getattr(row, name) for name in Presented.__dataclass_fields__}
    named["interval"] = timedelta(microseconds=row.interval)
    ago = moment(row.clock) - row.seen_at
    return Seen(
        Presented(**named),
        row.started_at,
        max(ago, timedelta(0)),
        stopped=row.stopped_at is not None,
    )


def _beside(store: Base) -> Any:
    meta = {
        "database": plain_of(store.database),
        "schema": store.audit._meta.schema,
        "table_name": TABLE,
    }
    return type("SeenMonitor", (SeenMonitor,), {"Meta": type("Meta", (), meta)})
