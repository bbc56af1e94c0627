"""Signatures of audits: who writes the table, but has no key, cannot make up a job."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, Protocol

from .errors import SignatureRefused

SHORTEST_KEY = 16  # bytes

# Signed too, so that what the same key has signed for another purpose means nothing here.
_CONTEXT = b"dramatiq-durable audit 1"


class Signable(Protocol):
    """An audit, or what will be one."""

    @property
    def message_id(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def queue_name(self) -> str: ...
    @property
    def payload(self) -> Any: ...


class Signer:
    """Signs with the first of *keys*, and knows the signatures of each."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"<Signer, keys: {len(self._keys)}>"

    def sign(self, audit: Signable) -> str:
        return _signature(self._keys[0], _framed(audit))

    def verify(self, audit: Signable, signature: Any) -> None:
        """Raise SignatureRefused when *signature* is none of ours for what *audit* says."""
        if signature is None:
            raise SignatureRefused("the audit is not signed; whoever wrote it has no signing_key")
        framed = _framed(audit)
        found = str(signature).encode("utf-8", "replace")
        if not any(hmac.compare_digest(_signature(k, framed).encode(), found) for k in self._keys):
            raise SignatureRefused(
                "the audit was altered after it was signed, or signed with a signing_key not known here"
            )


def _signature(key: bytes, framed: bytes) -> str:
    return hmac.new(key, framed, "sha256").hexdigest()


def _framed(audit: Signable) -> bytes:
    """What is signed: each part after its length, so that nothing can move from one to the next."""
    names = (audit.message_id, audit.actor_name, audit.queue_name)
    encoded = (name.encode("utf-8", "surrogatepass") for name in names)
    parts = (_CONTEXT, *encoded, bytes(audit.payload))
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(8, "big"), part))
