"""A group of durable messages is sent together: all of its audits are written, or none."""

from __future__ import annotations

import functools
from typing import Any

import dramatiq

from .bulk import Bulk
from .sending import Enqueue, following_up, gathering, is_gathering


def send_groups_together() -> None:
    """Replace ``dramatiq.group.run``, for Dramatiq has no hook before a group or after it."""
    group_class: Any = dramatiq.group
    run = group_class.run
    if run.__module__ == __name__:
        return

    def run_together(group: Any, *args: Any, **options: Any) -> Any:
        enqueue = group.broker.enqueue
        # A group in a group is part of that.
        if not isinstance(enqueue, Enqueue) or is_gathering(enqueue):
            return run(group, *args, **options)
        hooks: Any = enqueue.hooks
        bulk = Bulk(hooks, group.broker)
        with following_up():
            with gathering(enqueue, bulk.take):
                result = run(group, *args, **options)
            bulk.send()
        return result

    group_class.run = functools.wraps(run, assigned=("__doc__", "__name__"))(run_together)
