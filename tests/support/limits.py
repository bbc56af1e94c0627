"""Audits of which the database refuses some."""

from __future__ import annotations

from typing import Any

import dramatiq
import peewee

from dramatiq_durable import Audit, DurableMiddleware


class Limited(Audit):
    tenant = peewee.IntegerField(null=True, constraints=[peewee.Check("tenant < 10")])


class TenantMiddleware(DurableMiddleware):
    """Of messages whose argument is the tenant."""

    def audit_columns(
        self, broker: dramatiq.Broker, message: dramatiq.Message[Any]
    ) -> dict[str, Any]:
        return {"tenant": message.args[0]}


def with_limit(
    database: peewee.Database, kind: type[TenantMiddleware] = TenantMiddleware
) -> DurableMiddleware:
    """A middleware that the *database* refuses the audits of tenants from 10 on."""
    model = type("Model", (Limited,), {"Meta": type("Meta", (), {"database": database})})
    return kind(database, audit_model=model)
