"""Bounds that every text, number and object of a record keeps, each refused with its field's name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput

__all__ = [
    "DIGEST",
    "MAX_INDEX_BYTES",
    "check_code",
    "check_figures",
    "check_json",
    "check_line",
    "check_object",
    "check_text",
    "check_unique",
]

MAX_LINE: Final = 500
MAX_OBJECT_BYTES: Final = 1 << 50
MAX_INDEX_BYTES: Final = 64 << 20
"""Of an index of shards, which is read as a whole."""

DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_CODE: Final = re.compile(r"[0-9]{3}")
_MAX_DEPTH: Final = 64


def check_line(field: str, text: str, *, most: int = MAX_LINE, empty: bool = True) -> None:
    """InvalidInput unless it is one line of at most `most` characters."""
    if not text and not empty:
        raise InvalidInput(f"{field} is missing; give 1 to {most} characters", field=field)
    if len(text) > most:
        raise InvalidInput(f"{field} has {len(text)} characters, at most {most} are allowed", field=field)
    if not text.isprintable():
        raise InvalidInput(f"{field} {text[:40]!r} has a character that cannot be printed; leave it out", field=field)


def check_text(field: str, text: str, most: int) -> None:
    """InvalidInput unless it has at most `most` characters, and none but letters, signs, line ends and tabs."""
    if len(text) > most:
        raise InvalidInput(f"{field} has {len(text)} characters, at most {most} are allowed", field=field)
    if not all(character.isprintable() or character in "\n\r\t" for character in text):
        raise InvalidInput(f"{field} has a character that cannot be printed; leave it out", field=field)


def check_json(field: str, text: str, *, empty: bool = True) -> None:
    """InvalidInput unless it is a JSON object; an empty text is none."""
    if not text and empty:
        return
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{field} is no JSON: {str(error)[:100]}", field=field) from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{field} is a JSON {_name(value)}, expected an object as {{...}}", field=field)
    if _depth(value) > _MAX_DEPTH:
        raise InvalidInput(f"{field} is nested deeper than {_MAX_DEPTH}; make it flatter", field=field)


def check_code(field: str, code: str) -> None:
    """InvalidInput unless it is three digits."""
    if not _CODE.fullmatch(code):
        raise InvalidInput(f"{field} is '{code[:20]}', expected three digits as in 001", field=field)


def check_object(field: str, found: pb.Object, most: int = MAX_OBJECT_BYTES) -> None:
    """InvalidInput unless it is a digest and a size of at most `most` bytes."""
    if not DIGEST.fullmatch(found.sha256):
        raise InvalidInput(
            f"{field} has the digest '{found.sha256[:80]}', expected SHA-256 as 64 hexadecimal digits in lower case",
            field=field,
        )
    if found.size > most:
        raise InvalidInput(f"{field} has {found.size} bytes, at most {most} are allowed", field=field)


def check_figures(field: str, figures: Mapping[str, float], most: int) -> None:
    """InvalidInput unless all names are lines and all values finite."""
    if len(figures) > most:
        raise InvalidInput(f"there are {len(figures)} {field}, at most {most} are allowed", field=field)
    for name, value in figures.items():
        check_line(f"the name of one of the {field}", name, most=200, empty=False)
        if not math.isfinite(value):
            raise InvalidInput(
                f"'{name}' of the {field} is {value}, expected a finite number; leave it out", field=field
            )


def check_unique(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f"{field} '{name[:100]}' is there twice; name it once", field=field)
        seen.add(name)


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _name(value: object) -> str:
    return {list: "array", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")


def _depth(value: object) -> int:
    """Without recursion: what is checked may be nested by somebody who wants to exhaust the stack."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        item, depth = pending.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        pending += [(each, depth + 1) for each in inner]
    return deepest
