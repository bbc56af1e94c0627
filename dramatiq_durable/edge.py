"""Where the body of an actor begins and ends."""

from __future__ import annotations

import functools
from typing import Any

import dramatiq

from .working import current_run


def with_edge(actor: dramatiq.Actor[Any, Any]) -> Any:
    """The function of *actor*, which as a durable job is executed by its run; called directly it is as before."""
    fn = actor.fn

    @functools.wraps(fn)
    def body(*args: Any, **kwargs: Any) -> Any:
        run = current_run()
        if run is None or run.in_body or run.message.actor_name != actor.actor_name:
            return fn(*args, **kwargs)
        return run.execute(fn, args, kwargs)

    return body
