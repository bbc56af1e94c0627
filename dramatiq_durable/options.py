"""The options of middleware, actors and messages: names, units, defaults, checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from .backoff import cubic_backoff
from .errors import OptionError
from .models import NAME_LENGTH, Audit
from .signing import SHORTEST_KEY, Signer

Backoff: TypeAlias = Callable[[int], timedelta]
Options: TypeAlias = dict[str, Any]

#: Options of actors, each with the default of the middleware; durations in milliseconds.
ACTOR_DEFAULTS: Options = {
    "durable": False,
    "job_timeout": 600_000,
    "heartbeat_interval": 10_000,
    "backoff": cubic_backoff,
    "audit_model": None,
    "max_crashes": None,
    "max_payload_size": None,
    "requeue_on_shutdown": False,
}

#: Options that workers and monitors need too, of the middleware alone; durations in milliseconds.
MIDDLEWARE_DEFAULTS: Options = {
    "expiration": 3 * 86_400_000,
    "retention": 86_400_000,
    "dead_retention": 14 * 86_400_000,
    "signing_key": None,
}

#: None switches these off; for every other option None means that it is not set here.
NONE_IS_A_VALUE = {"heartbeat_interval", "max_crashes", "max_payload_size"}

#: Longer durations are a mistake, and do not fit into the calendar.
LONGEST = timedelta(days=36_500)

#: Bytes of a table's name.  PostgreSQL cuts the names of its indexes, which are longer, at 63.
LONGEST_TABLE = 52

FOR_EVER = -1
LEASE_IN_HEARTBEATS = 4


@dataclass(frozen=True)
class Policy:
    """The options of one message, resolved message → actor → middleware; milliseconds."""

    durable: bool
    job_timeout: int
    heartbeat_interval: int | None
    backoff: Backoff
    audit_model: type[Audit] | None
    max_crashes: int | None
    max_payload_size: int | None
    requeue_on_shutdown: bool

    def wait(self, enqueue_count: int) -> timedelta:
        """The backoff after so many sends.

        Raises:
          OptionError: The function gave nothing that one could wait for.
        """
        return _wait(self.backoff, enqueue_count)

    @property
    def lease(self) -> int:
        if self.heartbeat_interval is None:
            return self.job_timeout
        return LEASE_IN_HEARTBEATS * self.heartbeat_interval


def _wait(backoff: Backoff, enqueue_count: int) -> timedelta:
    wait = backoff(enqueue_count)
    if not isinstance(wait, timedelta) or not timedelta(0) <= wait <= LONGEST:
        raise OptionError(
            f"backoff({enqueue_count}) must be a timedelta of 0 to {LONGEST.days} days, not {wait!r}"
        )
    return wait


def resolve(*levels: Mapping[str, Any]) -> Policy:
    """The policy of a message from its own, its actor's and the middleware's options, in this order."""
    found = dict(ACTOR_DEFAULTS)
    for options in reversed(levels):
        for name in ACTOR_DEFAULTS.keys() & options.keys():
            if options[name] is not None or name in NONE_IS_A_VALUE:
                found[name] = options[name]
    return Policy(**found)


def checked(
    options: Mapping[str, Any], whose: str, names: Collection[str] = ACTOR_DEFAULTS.keys()
) -> Options:
    """Those of *options* that are among *names*, durations as milliseconds.

    Raises:
      OptionError: If one makes no sense.  *whose* says in the message where it came from.
    """
    return {
        name: _CHECKS[name](name, value, whose) for name, value in options.items() if name in names
    }


def check_together(policy: Policy, whose: str) -> None:
    """Raise OptionError when options contradict each other."""
    beat = policy.heartbeat_interval
    if beat is not None and beat >= policy.job_timeout:
        raise OptionError(
            f"{whose}: heartbeat_interval ({beat} ms) must be below job_timeout "
            f"({policy.job_timeout} ms); make one of them fit, or set heartbeat_interval=None"
        )


def check_retention(options: Mapping[str, int]) -> None:
    kept, dead = options["retention"], options["dead_retention"]
    if dead != FOR_EVER and dead < kept:
        raise OptionError(
            f"DurableMiddleware: dead_retention ({dead} ms) must not be below retention "
            f"({kept} ms); -1 keeps dead audits for ever"
        )


def retentions(options: Mapping[str, int]) -> dict[str, Any]:
    """How long finished audits are kept; None is for ever."""
    kept, dead = options["retention"], options["dead_retention"]
    return {
        "retention": timedelta(milliseconds=kept),
        "dead_retention": None if dead == FOR_EVER else timedelta(milliseconds=dead),
    }


def check_positive(whose: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise OptionError(f"{whose}: {name} must be more than 0, not {value!r}")


def check_name(name: Any, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise OptionError(f"{what} must be a text that is not empty, not {name!r}")
    if len(name) > NAME_LENGTH:
        raise OptionError(f"{what} is longer than {NAME_LENGTH} characters: {name[:40]!r}...")


def check_unique_key(key: Any, whose: str) -> None:
    """Raise OptionError when *key* is neither a text nor None; it may be personal, so the error does not show it."""
    if key is not None and not (isinstance(key, str) and key):
        what = "an empty one" if key == "" else type(key).__name__
        raise OptionError(f"{whose}: unique_key must be a text that is not empty, not {what}")


def _milliseconds(name: str, value: Any, whose: str) -> Any:
    if isinstance(value, timedelta):
        value = int(value.total_seconds() * 1000)
    if value is None or (value == FOR_EVER and name == "dead_retention"):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise OptionError(
            f"{whose}: {name} must be a positive integer of milliseconds or a timedelta, not {value!r}"
        )
    if value > LONGEST // timedelta(milliseconds=1):
        raise OptionError(f"{whose}: {name} is longer than {LONGEST.days} days: {value!r}")
    return value


def _count(name: str, value: Any, whose: str) -> Any:
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise OptionError(f"{whose}: {name} must be a positive integer or None, not {value!r}")
    return value


def _flag(name: str, value: Any, whose: str) -> Any:
    if value is not None and not isinstance(value, bool):
        raise OptionError(f"{whose}: {name} must be True or False, not {value!r}")
    return value


def _backoff(name: str, value: Any, whose: str) -> Any:
    if value is None:
        return value
    if not callable(value):
        raise OptionError(f"{whose}: {name} must be a function of enqueue_count, not {value!r}")
    try:
        _wait(value, 1)
    except Exception as error:
        raise OptionError(f"{whose}: {name}: {error}") from error
    return value


def _audit_model(name: str, value: Any, whose: str) -> Any:
    if value is not None and not (isinstance(value, type) and issubclass(value, Audit)):
        raise OptionError(f"{whose}: {name} must be a subclass of Audit, not {value!r}")
    if value is not None and value._meta.database is None:
        raise OptionError(f"{whose}: {name} {value.__name__} names no database in its Meta")
    if value is not None:
        for identifier in filter(None, (value._meta.table_name, value._meta.schema)):
            _check_identifier(identifier, f"{whose}: {name} {value.__name__}")
    return value


def _check_identifier(identifier: str, whose: str) -> None:
    # Peewee quotes an identifier, but not the quotes in it.
    if not identifier.isprintable() or set(identifier) & set("\"'`%\\"):
        raise OptionError(f"{whose}: a quote, %, \\ or control character in {identifier!r}")
    if len(identifier.encode()) > LONGEST_TABLE:
        raise OptionError(f"{whose}: longer than {LONGEST_TABLE} bytes: {identifier!r}")


def _signing_key(name: str, value: Any, whose: str) -> Any:
    """A Signer, whose repr shows no key; nor do the errors."""
    if value is None:
        return value
    given = value if isinstance(value, (list, tuple)) else [value]
    keys = [k.encode("utf-8", "surrogatepass") if isinstance(k, str) else k for k in given]
    wrong = [key for key in keys if not isinstance(key, bytes)]
    if wrong or not keys:
        kind = type(wrong[0]).__name__ if wrong else "an empty list"
        raise OptionError(f"{whose}: {name} must be a text, bytes, or a list of them, not {kind}")
    if min(map(len, keys)) < SHORTEST_KEY:
        raise OptionError(
            f"{whose}: {name} has fewer than {SHORTEST_KEY} bytes; take at least 32 random ones, "
            'such as `python -c "import secrets; print(secrets.token_hex(32))"` prints'
        )
    return Signer(keys)


_CHECKS: dict[str, Callable[[str, Any, str], Any]] = {
    "durable": _flag,
    "job_timeout": _milliseconds,
    "heartbeat_interval": _milliseconds,
    "backoff": _backoff,
    "audit_model": _audit_model,
    "max_crashes": _count,
    "max_payload_size": _count,
    "requeue_on_shutdown": _flag,
    "expiration": _milliseconds,
    "retention": _milliseconds,
    "dead_retention": _milliseconds,
    "signing_key": _signing_key,
}
