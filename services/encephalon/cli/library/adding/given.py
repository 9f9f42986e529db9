"""What was typed about a new record, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records import KINDS, Reference
from encephalon.library.records.reference import check_alias, check_name

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Given", "pairs"]


@dataclass(frozen=True, slots=True)
class Given:
    name: str | None = None
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    licence: str = ""
    origin: str = ""
    parents: Sequence[tuple[str, Reference]] = ()
    """Each with its role."""
    alias: str | None = None

    @classmethod
    def read(
        cls,
        *,
        name: str | None,
        description: str,
        tags: Iterable[str],
        metrics: Iterable[str],
        licence: str,
        origin: str,
        parents: Iterable[str],
        alias: str | None,
    ) -> Given:
        """InvalidInput for what cannot be read."""
        if name is not None:
            check_name(name)
        if alias is not None:
            check_alias(alias)
        return cls(
            name=name,
            description=description,
            tags={key: value for key, _, value in (item.partition("=") for item in tags)},
            metrics={
                key: number(key, value) for key, value in pairs("--metric", metrics, "accuracy.test=0.97").items()
            },
            licence=licence,
            origin=origin,
            parents=[(role, Reference.parse(text)) for role, text in listed("--parent", parents, "data_set=avmnist@1")],
            alias=alias,
        )

    async def draft(self, library: Library, kind: str, name: str, origin: str) -> pb.Record:
        """A record without a body; `origin` is of a record that was given none. NotFound for a parent that is not
        there.
        """
        record = pb.Record(
            id=pb.Reference(kind=KINDS[kind], name=name),
            description=self.description,
            tags=self.tags,
            metrics=self.metrics,
            licence=self.licence,
            origin=self.origin or origin,
        )
        for role, reference in self.parents:
            record.parents.add(role=role, record=(await library.resolve(reference)).message)
        return record


def pairs(option: str, items: Iterable[str], example: str, *, empty: bool = False) -> dict[str, str]:
    """`name=value` each, no name twice; `empty` allows that there is no value. InvalidInput shows the example."""
    found: dict[str, str] = {}
    for name, value in listed(option, items, example, empty=empty):
        if name in found:
            raise InvalidInput(f"{option} gives '{name}' twice; give it once")
        found[name] = value
    return found


def listed(option: str, items: Iterable[str], example: str, *, empty: bool = False) -> Iterable[tuple[str, str]]:
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals or not (value or empty):
            raise InvalidInput(f"{option} {item[:80]} cannot be read; write it as {option} {example}")
        yield name, value


def number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"the metric '{name}' is '{text[:40]}', which is no number") from None
