"""The kinds of records, as words and as numbers of the wire."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput

__all__ = ["KINDS", "kind_named", "name_of_kind"]

KINDS: Mapping[str, pb.Kind.ValueType] = MappingProxyType(
    {
        "area": pb.KIND_AREA,
        "network": pb.KIND_NETWORK,
        "data_set": pb.KIND_DATA_SET,
        "scene": pb.KIND_SCENE,
        "brain": pb.KIND_BRAIN,
        "run": pb.KIND_RUN,
    }
)

_OTHERS = {"dataset": "data_set", "data-set": "data_set"}
_NAMES: Mapping[int, str] = {number: name for name, number in KINDS.items()}


def kind_named(word: str) -> str:
    """The key of `KINDS` that a word means; plurals too. InvalidInput suggests the nearest."""
    plain = word.strip().lower()
    for name in (plain, plain.removesuffix("s")):
        name = _OTHERS.get(name, name)
        if name in KINDS:
            return name
    near = difflib.get_close_matches(plain, KINDS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(KINDS)}"
    raise InvalidInput(f"there is no kind '{word[:60]}' of record; {hint}", kind=word[:60])


def name_of_kind(kind: int) -> str:
    """The word of a kind. InvalidInput for a number that is none."""
    try:
        return _NAMES[kind]
    except KeyError:
        raise InvalidInput(f"{kind} is no kind of record; kinds are {', '.join(KINDS)}") from None
