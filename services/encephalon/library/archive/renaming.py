"""Records under other names, with everything among them that refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records import Reference
from encephalon.library.records.reference import check_name

__all__ = ["Renaming"]


class Renaming:
    def __init__(self, names: Mapping[str, str], there: Iterable[Reference]) -> None:
        """names: `kind:name`, or `name` where only one kind has it, to the new name. there: the records to rename.

        Raises InvalidInput for a name that none of them has, that several kinds have, or that cannot be changed.
        """
        self._there = frozenset(there)
        taken = {(reference.kind, reference.name) for reference in self._there}
        self._names = {_found(old, taken): check_name(new) for old, new in names.items()}
        taken -= set(self._names)
        for (kind, old), new in self._names.items():
            if (kind, new) in taken:
                raise InvalidInput(f"'{old}' cannot become '{new}': the archive has another {kind} of that name")
            taken.add((kind, new))

    def of(self, reference: Reference) -> Reference:
        """Another version of a name that is not among those to rename keeps it."""
        if reference not in self._there:
            return reference
        name = self._names.get((reference.kind, reference.name), reference.name)
        return Reference(name, reference.selector, reference.kind)

    def apply(self, record: pb.Record) -> pb.Record:
        """The record itself, changed."""
        if self._names:
            for id in (record.id, *(parent.record for parent in record.parents), *record.brain.networks.values()):
                id.name = self.of(Reference.of(id)).name
        return record


def _found(text: str, there: Iterable[tuple[str | None, str]]) -> tuple[str | None, str]:
    wanted = Reference.parse(text)
    found = [(kind, name) for kind, name in there if name == wanted.name and wanted.kind in (None, kind)]
    if len(found) != 1:
        how = "several kinds have that name; write kind:name" if found else "the archive has no record of that name"
        raise InvalidInput(f"'{text[:140]}' cannot be renamed: {how}")
    if found[0][0] == "area":
        raise InvalidInput(f"'{text[:140]}' cannot be renamed: it is an area, which networks name by its name")
    return found[0]
