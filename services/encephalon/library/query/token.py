"""Where a page ended, as a word that a caller carries to the next one: opaque, and checked when it comes back."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from encephalon.core.errors import InvalidInput
from encephalon.library.query.order import Position
from encephalon.library.query.query import Query

__all__ = ["read", "write"]

_CHECK_BYTES: Final = 6
_MAX_CHARACTERS: Final = 4096


def write(query: Query, position: Position) -> str:
    payload = json.dumps([query.digest, *position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(payload) + payload).rstrip(b"=").decode()


def read(query: Query, token: str) -> Position:
    """Raises InvalidInput when the token was altered, or belongs to another query."""
    if len(token) > _MAX_CHARACTERS:
        raise _refused(token)
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(payload):
            raise _refused(token)
        digest, present, value, key = json.loads(payload)
    except (ValueError, TypeError, RecursionError):  # it is easily made by somebody who wants to do harm
        raise _refused(token) from None
    if digest != query.digest:
        raise InvalidInput(
            "this token of a page belongs to another query; repeat the query that gave it, or leave it out"
        )
    order = query.order
    if present not in (0, 1) or not isinstance(key, str) or (order is not None and not order.holds(value)):
        raise _refused(token)
    return present, value, key


def _check(payload: bytes) -> bytes:
    return hashlib.sha256(b"page" + payload).digest()[:_CHECK_BYTES]


def _refused(token: str) -> InvalidInput:
    return InvalidInput(f"'{token[:40]}' is no token of a page; give the one that the page before ended with, or none")
