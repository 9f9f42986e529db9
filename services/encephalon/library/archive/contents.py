"""What an archive says that it holds, and how its members are named.

    encephalon.json                                the contents: records and objects with their digests and sizes
    objects/<sha256>                               the bytes of an object
    records/<kind>/<name>/<8 digits>.pb            a record as protobuf; the name percent-encoded

A zip whose members are stored as they are, sorted (the contents first), with one date: the same records give the same
bytes, and nothing can grow when it is unpacked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput, Unsupported
from encephalon.library.records import Reference, name_of_kind
from encephalon.library.records.bounds import DIGEST
from encephalon.library.store.keys import segment

__all__ = [
    "CONTENTS",
    "MAX_CONTENTS_BYTES",
    "MAX_MEMBERS",
    "Contents",
    "Item",
    "object_path",
    "record_path",
    "reference_at",
]

CONTENTS: Final = "encephalon.json"
FORMAT: Final = "encephalon library 1"
MAX_MEMBERS: Final = 100_000
MAX_CONTENTS_BYTES: Final = 32 * 1024 * 1024  # of as many members, each with a path of some 200 bytes and its digest


@dataclass(frozen=True, slots=True)
class Item:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Contents:
    records: Mapping[str, Item]
    """By their paths in the archive."""
    objects: Mapping[str, int]
    """Sizes by digest."""

    @property
    def members(self) -> Mapping[str, Item]:
        """All but the contents themselves, in their order."""
        objects = {object_path(sha256): Item(sha256, size) for sha256, size in self.objects.items()}
        return dict(sorted({**self.records, **objects}.items()))

    def encoded(self) -> bytes:
        """Equal contents give equal bytes. InvalidInput when there are more members than an archive may have."""
        if len(self.records) + len(self.objects) >= MAX_MEMBERS:
            raise InvalidInput(
                f"{len(self.records)} records with {len(self.objects)} objects are more than the {MAX_MEMBERS} members "
                "that an archive may have; export fewer at a time"
            )
        document = {
            "format": FORMAT,
            "objects": [{"sha256": sha256, "size": size} for sha256, size in sorted(self.objects.items())],
            "records": [
                {"path": path, "sha256": item.sha256, "size": item.size} for path, item in sorted(self.records.items())
            ],
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def decoded(cls, data: bytes) -> Contents:
        """Raises Unsupported for another format, Corrupt for what `encoded` does not give."""
        try:
            document = json.loads(data)
            form = document["format"]
        except (ValueError, RecursionError, LookupError, TypeError):
            raise Corrupt(f"'{CONTENTS}' of the archive is damaged; export anew") from None
        if form != FORMAT:
            raise Unsupported(
                f"the archive has the format '{str(form)[:60]}', this release of Encephalon reads '{FORMAT}'"
            )
        try:
            found = cls(
                {str(one["path"]): _item(one) for one in document["records"]},
                {str(one["sha256"]): _item(one).size for one in document["objects"]},
            )
        except (LookupError, TypeError, ValueError):
            raise Corrupt(f"'{CONTENTS}' of the archive is damaged; export anew") from None
        # Nothing twice, nothing besides, nothing in another order: then it says one thing only.
        if found.encoded() != data:
            raise Corrupt(f"'{CONTENTS}' of the archive was altered; export anew")
        return found


def record_path(id: pb.Reference) -> str:
    return f"records/{name_of_kind(id.kind)}/{segment(id.name)}/{id.version:08d}.pb"


def reference_at(path: str) -> Reference:
    """Of a path that `record_path` gave."""
    _, kind, name, version = path.removesuffix(".pb").split("/")
    return Reference(unquote(name), int(version), kind)


def object_path(sha256: str) -> str:
    return f"objects/{sha256}"


def _item(found: Any) -> Item:
    sha256, size = found["sha256"], found["size"]
    if not isinstance(sha256, str) or not DIGEST.fullmatch(sha256) or type(size) is not int or size < 0:
        raise ValueError
    return Item(sha256, size)
