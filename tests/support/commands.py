"""The ``dramatiq-durable`` command in this process."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from click.testing import CliRunner, Result

from dramatiq_durable.cli import main


def command_for(monkeypatch: pytest.MonkeyPatch, broker: dramatiq.Broker) -> Callable[..., Result]:
    """What runs a command until the end of the test, with ``shop:broker`` for *broker*.

    ``run("list", "--state", "dead")`` is ``dramatiq-durable list shop:broker --state dead``.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    shop = types.ModuleType("shop")
    vars(shop)["broker"] = broker
    monkeypatch.setitem(sys.modules, "shop", shop)

    def run(name: str, *args: str, **options: Any) -> Result:
        words = [*name.split(), "shop:broker", *args]
        return CliRunner().invoke(main, words, catch_exceptions=False, **options)

    return run
