"""Opens a store by its URL. A store's client library is imported only when its URL asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from encephalon.core.errors import InvalidInput
from encephalon.state.key_value import KeyValue
from encephalon.state.objects import Objects

__all__ = ["open_key_value", "open_objects"]

DEADLINE_S: Final = 3.0
"""Less than a lease of 5 s: who keeps one must hear in time that the store does not answer."""

_KEY_VALUE: Final = "sqlite:///ABSOLUTE/PATH or etcd://HOST:PORT"
_OBJECTS: Final = "folder:///ABSOLUTE/PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET (?secure=1 for TLS)"


def open_key_value(url: str, *, deadline_s: float = DEADLINE_S) -> KeyValue:
    """`async with open_key_value(url) as store`. Raises InvalidInput for a bad URL; entering raises Unavailable,
    FailedPrecondition.
    """
    parts = _split(url, _KEY_VALUE)
    match parts.scheme:
        case "sqlite":
            from encephalon.state.sqlite import Sqlite

            return Sqlite(_path(url, parts, _KEY_VALUE), deadline_s=deadline_s)
        case "etcd":
            from encephalon.state.etcd import Etcd

            if parts.path.strip("/") or parts.query or parts.username:
                raise _bad(url, "more than a host and a port", _KEY_VALUE)
            return Etcd(_address(url, parts, _KEY_VALUE), deadline_s=deadline_s)
    raise _bad(url, f"the unknown scheme {parts.scheme!r}", _KEY_VALUE)


def open_objects(url: str, *, deadline_s: float = DEADLINE_S) -> Objects:
    """`async with open_objects(url) as store`. Raises InvalidInput for a bad URL; entering raises Unavailable,
    Denied.
    """
    parts = _split(url, _OBJECTS)
    match parts.scheme:
        case "folder":
            from encephalon.state.folder import Folder

            return Folder(_path(url, parts, _OBJECTS), deadline_s=deadline_s)
        case "minio":
            from encephalon.state.minio import MinioObjects

            bucket = parts.path.strip("/")
            if not bucket or "/" in bucket or not parts.username or not parts.password:
                raise _bad(url, "no bucket or no credentials", _OBJECTS)
            return MinioObjects(
                _address(url, parts, _OBJECTS),
                bucket,
                unquote(parts.username),
                unquote(parts.password),
                secure=_flag(url, parts, "secure"),
                deadline_s=deadline_s,
            )
    raise _bad(url, f"the unknown scheme {parts.scheme!r}", _OBJECTS)


def _split(url: str, forms: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise _bad(url, str(error), forms) from None
    if parts.fragment:
        raise _bad(url, "a fragment", forms)
    return parts


def _path(url: str, parts: SplitResult, forms: str) -> Path:
    if parts.netloc or parts.query or len(parts.path) < 2:
        raise _bad(url, "no absolute path", forms)
    return Path(unquote(parts.path))


def _address(url: str, parts: SplitResult, forms: str) -> str:
    if not parts.hostname or not parts.port:
        raise _bad(url, "no host or no port", forms)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port}"


def _flag(url: str, parts: SplitResult, name: str) -> bool:
    query = parse_qs(parts.query, keep_blank_values=True)
    if set(query) - {name} or query.get(name, ["0"]) not in (["0"], ["1"]):
        raise _bad(url, f"something else than {name}=0 or {name}=1 behind the question mark", _OBJECTS)
    return query.get(name) == ["1"]


def _bad(url: str, what: str, forms: str) -> InvalidInput:
    return InvalidInput(f"the store {_without_secret(url)!r} has {what}; write {forms}")


def _without_secret(url: str) -> str:
    """A URL may hold a password, which must not get into a log."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else url
