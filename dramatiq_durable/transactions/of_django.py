"""The transactions of Django's connections."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import OptionError
from .loans import KINDS, Committed, Lender, Loan, is_made_by


def lender_of(given: Any) -> Lender | None:
    """*given* is ``django.db.connection``, one of ``connections``, or its alias; None when it is not."""
    if is_made_by("django.db.backends.base.base", given, "BaseDatabaseWrapper"):
        return lambda: _lent_by(given)
    django = sys.modules.get("django.db")
    if django is None or not (isinstance(given, str) or given is django.connection):
        return None
    alias = given if isinstance(given, str) else django.DEFAULT_DB_ALIAS
    if alias not in django.connections:
        raise OptionError(f"Django has no database {alias!r}")
    return lambda: _lent_by(django.connections[alias])


def _lent_by(wrapper: Any) -> Loan:
    wrapper.validate_thread_sharing()
    if not wrapper.in_atomic_block or wrapper.connection is None:
        raise OptionError(
            f"no transaction is open on Django's connection {wrapper.alias!r}; "
            f"send within `with transaction.atomic(using={wrapper.alias!r}):`"
        )
    if wrapper.vendor not in KINDS:
        raise OptionError(f"Django's connection {wrapper.alias!r} is to {wrapper.display_name}")

    def after_commit(committed: Committed) -> None:
        # captureOnCommitCallbacks() calls back in the middle of the transaction of a TestCase.
        wrapper.on_commit(lambda: committed(wrapper.in_atomic_block))

    return Loan(KINDS[wrapper.vendor], wrapper.connection, after_commit)
