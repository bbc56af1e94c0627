"""The library with a broken transition, which the simulation must notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

from dramatiq_durable import DurableError
from dramatiq_durable.store import Claim, Held, Marked, Store
from dramatiq_durable.store.many import as_read

MUTANTS: dict[str, tuple[str, Callable[[Any], Any], int]] = {}


def _mutant(method: str, first_seed: int = 0) -> Callable[[Any], Any]:
    """Replaces a method of the store by what the decorated function makes of it.

    One that few seeds notice names a *first_seed* shortly before one of them.
    """

    def named(broken: Any) -> Any:
        MUTANTS[broken.__name__] = (method, broken, first_seed)
        return broken

    return named


@contextmanager
def installed(name: str) -> Iterator[None]:
    method, broken, _ = MUTANTS[name]
    with mock.patch.object(Store, method, broken(getattr(Store, method))):
        yield


@_mutant("claim_all")
def claim_ignores_the_epoch(claim_all: Any) -> Any:
    def broken(store: Any, claims: list[Claim]) -> set[Held]:
        held = set()
        for claim in claims:
            audit = store.find(claim.message_id)
            epoch = audit.epoch if audit else claim.epoch
            if claim_all(store, [dataclasses.replace(claim, epoch=epoch)]):
                held.add(claim.held)
        return held

    return broken


@_mutant("complete")
def complete_has_no_fence(complete: Any) -> Any:
    def broken(store: Any, holds: list[Held]) -> set[Held]:
        for held in holds:
            _update(store, held.message_id, state="completed", due_at=None, finished_at=store.now())
        return set()

    return broken


@_mutant("mark")
def mark_has_no_guard(mark: Any) -> Any:
    """Whoever has read a stale audit pushes it."""

    def broken(store: Any, stale: Any, *args: Any) -> Any:
        marked = mark(store, stale, *args)
        if marked is None:
            audit = store.find(stale.message_id)
            now = {name: getattr(audit, name) for name in ("state", "epoch", "due_at")}
            marked = Marked(stale._replace(**now), stale.now + timedelta(seconds=60))
        return marked

    return broken


@_mutant("_lock", first_seed=1_300)
def marking_many_has_no_guard(_: Any) -> Any:
    def broken(store: Any, lane: Any, listed: Any) -> Any:
        return {as_read(stale) for stale in listed}

    return broken


@_mutant("retry")
def retry_does_not_wait_for_the_lease(retry: Any) -> Any:
    def broken(store: Any, message_ids: list[str]) -> Iterator[int]:
        for count in retry(store, message_ids):
            if count:
                for message_id in message_ids:
                    _update(store, message_id, due_at=store.now())
            yield count

    return broken


@_mutant("push_refused")
def a_refused_push_is_final(push_refused: Any) -> Any:
    def broken(store: Any, new: Any, **kwargs: Any) -> bool:
        _update(store, new.message_id, due_at=None)
        return True

    return broken


@_mutant("enqueue")
def the_audit_is_not_written(enqueue: Any) -> Any:
    """Where the database does not answer."""

    def broken(store: Any, *args: Any, **kwargs: Any) -> bool:
        try:
            return bool(enqueue(store, *args, **kwargs))
        except DurableError:
            return True

    return broken


@_mutant("expire")
def what_is_stale_is_deleted(expire: Any) -> Any:
    def broken(store: Any, stale: Any, reason: str) -> bool:
        query = store.audit.delete().where(store.audit.message_id == stale.message_id)
        store.connections.run(query.execute)
        return True

    return broken


def _update(store: Any, message_id: str, **values: Any) -> None:
    query = store.audit.update(**values).where(store.audit.message_id == message_id)
    store.connections.run(query.execute)
