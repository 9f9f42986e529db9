"""How the library's keys are written and read: names percent-encoded, versions as eight digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records.kinds import KINDS, name_of_kind

__all__ = ["OBJECTS", "Keys", "object_key", "reference_of", "segment", "versions_in"]

OBJECTS: Final = "sha256/"
"""What the keys of all objects start with in the object store."""

_MAX_NAMESPACE: Final = 200


def object_key(sha256: str) -> str:
    """In the object store."""
    return OBJECTS + sha256


def segment(name: str) -> str:
    """A name as one part of a key; what is no text, and so nobody's name, as a key of nobody."""
    return quote(name, safe="", errors="replace")


class Keys:
    """The keys of one library in the key-value store. `kind` is always a key of `records.KINDS`."""

    def __init__(self, namespace: str) -> None:
        """InvalidInput for a namespace that is empty, too long or not text."""
        try:
            size = len(namespace.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"the namespace {namespace[:40]!r} is not valid Unicode") from None
        if not 0 < size <= _MAX_NAMESPACE:
            raise InvalidInput(f"the namespace '{namespace[:40]}' must have 1 to {_MAX_NAMESPACE} bytes")
        self.root = f"/encephalon/{segment(namespace)}/library/"

    def record(self, id: pb.Reference) -> str:
        return self.root + _path(id)

    def records(self, kind: str, name: str | None = None) -> str:
        """What the keys of the records of a kind, or of a name, start with."""
        return f"{self.root}{kind}/" + _below(name)

    def summary(self, id: pb.Reference) -> str:
        return f"{self.root}summary/{_path(id)}"

    def summaries(self, kind: str | None = None, name: str | None = None) -> str:
        return f"{self.root}summary/" + ("" if kind is None else f"{kind}/" + _below(name))

    def head(self, kind: str, name: str) -> str:
        return f"{self.root}head/{kind}/{segment(name)}"

    def heads(self, kind: str) -> str:
        return f"{self.root}head/{kind}/"

    def alias(self, kind: str, name: str, alias: str) -> str:
        return f"{self.root}alias/{kind}/{segment(name)}/{segment(alias)}"

    def aliases(self, kind: str | None = None, name: str | None = None) -> str:
        return f"{self.root}alias/" + ("" if kind is None else f"{kind}/" + _below(name))

    def child(self, parent: pb.Reference, child: pb.Reference) -> str:
        return f"{self.root}child/{_path(parent)}/{_path(child)}"

    def children(self, parent: pb.Reference) -> str:
        return f"{self.root}child/{_path(parent)}/"

    def object(self, sha256: str) -> str:
        return f"{self.root}object/{sha256}"

    @property
    def objects(self) -> str:
        return f"{self.root}object/"

    def writer(self, id: str) -> str:
        return f"{self.root}writer/{segment(id)}"

    @property
    def writers(self) -> str:
        return f"{self.root}writer/"

    def parts(self, key: str) -> list[str]:
        """The parts of a key behind the root, decoded; empty for a key of another place."""
        return [unquote(part) for part in key.removeprefix(self.root).split("/")] if key.startswith(self.root) else []


def reference_of(parts: list[str]) -> pb.Reference:
    """Of `kind, name, version` as they stand in a key. InvalidInput when they are not such."""
    kind, name, version = parts if len(parts) == 3 else ("", "", "")
    number = int(version) if version.isascii() and version.isdigit() and len(version) == 8 else 0
    if kind not in KINDS or not name or not number:
        raise InvalidInput(f"'{'/'.join(parts)[:200]}' is no kind, name and version")
    return pb.Reference(kind=KINDS[kind], name=name, version=number)


def versions_in(keys: Iterator[str]) -> Iterator[int]:
    """The version at the end of each key; keys that end otherwise are left out."""
    for key in keys:
        version = key.rpartition("/")[2]
        if version.isascii() and version.isdigit() and len(version) == 8 and int(version):
            yield int(version)


def _path(id: pb.Reference) -> str:
    return f"{name_of_kind(id.kind)}/{segment(id.name)}/{id.version:08d}"


def _below(name: str | None) -> str:
    return "" if name is None else f"{segment(name)}/"
