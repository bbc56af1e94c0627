"""Which options a message has, and which table its audit is in."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, TypeAlias, cast
from urllib.parse import urlparse

import dramatiq
import peewee
from playhouse.db_url import connect, schemes

from .connections import Connections
from .errors import OptionError
from .messages import AnyMessage
from .models import Audit
from .options import (
    ACTOR_DEFAULTS,
    MIDDLEWARE_DEFAULTS,
    NONE_IS_A_VALUE,
    Options,
    Policy,
    check_name,
    check_retention,
    check_together,
    checked,
    resolve,
)
from .store import Monitors, Store, Table

AnyActor: TypeAlias = "dramatiq.Actor[Any, Any]"

DATABASE_URL = "DRAMATIQ_DURABLE_DATABASE_URL"
SIGNING_KEY = "DRAMATIQ_DURABLE_SIGNING_KEY"

DEFAULT_NAMESPACE = "dramatiq"


class Registry:
    """The databases and options of one broker's durable messages."""

    def __init__(
        self, database: peewee.Database | str | None, namespace: str | None, options: Options
    ) -> None:
        unknown = options.keys() - ACTOR_DEFAULTS.keys() - MIDDLEWARE_DEFAULTS.keys()
        if unknown:
            known = ", ".join(sorted({*ACTOR_DEFAULTS, *MIDDLEWARE_DEFAULTS}))
            raise OptionError(
                f"DurableMiddleware has no option {', '.join(sorted(unknown))}; it has {known}"
            )
        given = {
            name: value
            for name, value in checked(options, "DurableMiddleware", options).items()
            if value is not None or name in NONE_IS_A_VALUE
        }
        if "signing_key" not in given and SIGNING_KEY in os.environ:
            # Empty it is refused, too: nobody shall believe that what is not signed is.
            key = {"signing_key": os.environ[SIGNING_KEY]}
            given.update(checked(key, f"{SIGNING_KEY} in the environment", key))
        self.options: Options = {**MIDDLEWARE_DEFAULTS, **given}
        check_retention(self.options)
        check_together(resolve(self.options), "DurableMiddleware")
        if namespace is not None:
            check_name(namespace, "the namespace")
        self.database = _database(database)
        self.broker: dramatiq.Broker | None = None
        self._namespace = namespace
        self._stores: dict[type[Audit] | None, Store] = {}
        self._connections: dict[int, Connections] = {}
        self._making = threading.Lock()

    @property
    def namespace(self) -> str:
        """Whose audits these are, in a table that several applications share."""
        if self._namespace is not None:
            return self._namespace
        return getattr(self.broker, "namespace", None) or DEFAULT_NAMESPACE

    @property
    def store(self) -> Store:
        """The audits of the actors that name no ``audit_model``."""
        return self.store_for(resolve(self.options))

    def stores(self) -> list[Store]:
        """The audits of this broker: the default ones first, then those of each ``audit_model``."""
        actors = list(self.broker.actors.values()) if self.broker is not None else []
        policies = [resolve(self.options), *(resolve(a.options, self.options) for a in actors)]
        return list(dict.fromkeys(map(self.store_for, policies)))

    def durable_actors(self) -> list[tuple[str, str]]:
        """The queue and the name of each actor that is declared here, and durable."""
        actors = list(self.broker.actors.values()) if self.broker is not None else []
        return [
            (actor.queue_name, actor.actor_name)
            for actor in actors
            if resolve(actor.options, self.options).durable
        ]

    @property
    def monitors(self) -> Monitors:
        """The monitors that were seen, in a table beside the audits of the actors that name no ``audit_model``."""
        return Monitors(self.store)

    def tables(self) -> list[Table]:
        """The tables of this broker, as this version wants them."""
        return [*(store.table for store in self.stores()), self.monitors.table]

    def store_for(self, policy: Policy) -> Store:
        """Where the audits of messages with this policy are."""
        model = policy.audit_model
        with self._making:
            if model not in self._stores:
                audit = model if model is not None else _bound(self.database)
                database = _initialized(audit._meta.database)
                if id(database) not in self._connections:
                    self._connections[id(database)] = Connections(database)
                connections = self._connections[id(database)]
                self._stores[model] = Store(
                    audit, self.namespace, connections, self.options["signing_key"]
                )
            return self._stores[model]

    def policy(self, message: AnyMessage) -> Policy:
        """The options of *message*: its own, its actor's, the middleware's."""
        return self.policy_of(message.actor_name, message.options)

    def policy_of(self, actor_name: str, options: Mapping[str, Any]) -> Policy:
        actor = self.broker.actors.get(actor_name) if self.broker is not None else None
        return resolve(options, actor.options if actor is not None else {}, self.options)

    def bind(self, broker: dramatiq.Broker) -> None:
        with self._making:
            self.broker = broker
            # Their namespace may be the broker's.
            self._stores.clear()


def _bound(database: peewee.Database) -> type[Audit]:
    meta = type("Meta", (), {"database": database})
    return type("Audit", (Audit,), {"Meta": meta})


def _database(given: Any) -> peewee.Database:
    if given is None:
        given = os.environ.get(DATABASE_URL)
    if not given:
        raise OptionError(
            "DurableMiddleware has no database; give it a Peewee Database or a URL, "
            f"or set {DATABASE_URL}"
        )
    if isinstance(given, str):
        return _connect(given)
    if not isinstance(given, (peewee.Database, peewee.Proxy)):
        raise OptionError(
            f"DurableMiddleware needs a Peewee Database or a URL, not {type(given).__name__}"
        )
    if isinstance(given, peewee.Database):
        _refuse_asynchronous(given)
        _check_driver(given)
    return cast(peewee.Database, given)


def _connect(url: str) -> peewee.Database:
    if url.startswith(("mariadb:", "mariadb+pool:")):
        url = url.replace("mariadb", "mysql", 1)
    try:
        database: peewee.Database = connect(url, unquote_user=True, unquote_password=True)
        if isinstance(database, peewee.SqliteDatabase) and urlparse(url).netloc:
            # Peewee would ignore it, and keep audits in memory or in another file.
            raise ValueError("a file has no host")
    except (RuntimeError, ValueError):
        # The URL holds a password, and what failed to parse it repeats the URL.
        raise OptionError(
            f"DurableMiddleware cannot read its database URL: {_flaw(url)}; "
            "examples: sqlite:///jobs.db, postgresql://user:password@host/name, mysql://user:password@host/name"
        ) from None
    _check_driver(database)
    if "passwd" in database.connect_params:
        # Peewee's word for it, which PyMySQL deprecates.
        database.connect_params["password"] = database.connect_params.pop("passwd")
    return database


def _flaw(url: str) -> str:
    if "://" not in url:
        return "it has no scheme"
    try:
        parsed = urlparse(url)
        _ = parsed.port
    except ValueError:
        return "its host or port makes no sense (percent-encode what is special in the password)"
    if parsed.scheme not in schemes:
        return f"its scheme {parsed.scheme!r} is unknown"
    if parsed.scheme.startswith("sqlite"):
        return "the path of a file comes after three slashes"
    return "it names no database"


def _check_driver(database: Any) -> None:
    try:
        database.get_binary_type()
    except (AttributeError, peewee.ImproperlyConfigured):
        extra = "mysql" if isinstance(database, peewee.MySQLDatabase) else "postgres"
        raise OptionError(
            f"the driver of {type(database).__name__} is not installed; "
            f"run `pip install 'dramatiq-durable[{extra}]'`"
        ) from None


def _initialized(database: Any) -> peewee.Database:
    inner = database
    while isinstance(inner, peewee.Proxy):
        inner = inner.obj
    if inner is None:
        raise OptionError(
            "the DatabaseProxy of DurableMiddleware has no database yet; call its initialize() first"
        )
    _refuse_asynchronous(inner)
    return cast(peewee.Database, database)


def _refuse_asynchronous(database: Any) -> None:
    # What only AsyncDatabaseMixin has; its module cannot be imported everywhere.
    if hasattr(database, "aexecute_sql"):
        raise OptionError(
            f"audits cannot be in a Peewee {type(database).__name__}, which only coroutines can use; "
            "give DurableMiddleware the URL of the same database, and send with send_async()"
        )
