"""Keys as names that every file system and every S3 server keeps apart.

An S3 server may keep its objects as files, so what is unsafe in a folder (`..`, `a` beside `a/b`, an empty segment, a
name of more than 255 bytes) is unsafe in a bucket. The name of a key is a path: each segment but the last is a folder
and ends in `~`, so that it never meets an object; a segment of more than 200 bytes goes on in a folder that ends in
`~~`; all but letters, digits and `-_=,+@.` is percent-encoded, and so is a leading dot. The name of a prefix is a
prefix of the names.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from encephalon.core.errors import InvalidInput

__all__ = ["key_of", "name_of", "prefix_of"]

# S3 allows 1,024 bytes; some servers lose a few of them to names of their own.
MAX_NAME_BYTES: Final = 1000
_PIECE: Final = 200
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,+@.")
_EMPTY: Final = "%"


def name_of(key: str) -> str:
    """The name under which an object is kept. Raises InvalidInput when the key is empty, too long or not text."""
    if not key:
        raise InvalidInput("the key of an object must not be empty")
    *folders, last = key.split("/")
    name = "".join(_folder(segment) for segment in folders) + _pieces(last)
    if not last:
        name += _EMPTY
    if len(name) > MAX_NAME_BYTES:
        raise InvalidInput(
            f"the key {key[:40]!r}... needs a name of {len(name)} bytes, at most {MAX_NAME_BYTES} are allowed"
        )
    return name


def prefix_of(prefix: str) -> str:
    """What the names of all keys with this prefix start with."""
    *folders, last = prefix.split("/")
    return "".join(_folder(segment) for segment in folders) + _pieces(last)


def key_of(name: str) -> str | None:
    """The key of a name, or None when it is not one that `name_of` gives."""
    key = ""
    *folders, last = name.split("/")
    for folder in folders:
        if not folder.endswith("~"):
            return None
        key += folder[:-2] if folder.endswith("~~") else folder[:-1] + "/"
    try:
        key = unquote_to_bytes(key + ("" if last == _EMPTY else last)).decode()
    except UnicodeDecodeError:
        return None
    return key if key and name_of(key) == name else None


def _folder(segment: str) -> str:
    return _pieces(segment) + "~/"


def _pieces(segment: str) -> str:
    """The encoded segment, cut where a further character would make a piece too long."""
    done, piece = "", ""
    for character in segment:
        code = _encoded(character, leading=not piece)
        if len(piece) + len(code) > _PIECE:
            done, piece = f"{done}{piece}~~/", ""
            code = _encoded(character, leading=True)
        piece += code
    return done + piece


def _encoded(character: str, leading: bool) -> str:
    if character in _SAFE and not (leading and character == "."):
        return character
    try:
        return "".join(f"%{byte:02X}" for byte in character.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"the key contains {character!r}, which is not valid Unicode") from None
