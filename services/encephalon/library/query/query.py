"""What is asked of the library."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from encephalon.core.errors import InvalidInput
from encephalon.library.query.metric import MetricCondition
from encephalon.library.query.order import Order
from encephalon.library.records import kind_named

__all__ = ["Query"]

_CODE: Final = re.compile(r"[0-9]{3}")
# A person types it; whatever is longer is a mistake, and a condition is tried on every record.
_MAX_CHARACTERS: Final = 1000
_MAX_CONDITIONS: Final = 50


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions, all of which must hold, and an order. What is wrong raises InvalidInput, which suggests the nearest
    word.
    """

    kind: str | None = None
    """A key of `KINDS`; plurals are understood."""
    area: str | None = None
    modality: str | None = None
    """One that the record has, for example "image"."""
    code: str | None = None
    """Three digits, of a network."""
    data_set: str | None = None
    """The name of a data set among the record's parents."""
    name: str | None = None
    """A pattern as for files: `*`, `?` and `[...]`."""
    text: str = ""
    """Words, each of which is somewhere in the name, the description or the tags, in whatever case."""
    tags: Mapping[str, str | None] = field(default_factory=dict)
    """A tag's value by its name; None: whatever it is."""
    metrics: Sequence[MetricCondition | tuple[str, str, float]] = ()
    all_versions: bool = False
    """Else only the latest of each name."""
    sort: str = ""
    """"name", "created", "size", "version" or "metric:NAME", with "-" before it for the highest first; "": by kind and
    key, which needs no search through all records."""

    def __post_init__(self) -> None:
        given = MappingProxyType(dict(self.tags))
        conditions = tuple(one if isinstance(one, MetricCondition) else MetricCondition(*one) for one in self.metrics)
        object.__setattr__(self, "tags", given)
        object.__setattr__(self, "metrics", conditions)
        self._check_length()
        if self.kind is not None:
            object.__setattr__(self, "kind", kind_named(self.kind))
        if self.code is not None and not _CODE.fullmatch(self.code):
            raise InvalidInput(f"'{self.code[:20]}' is no code of a network; give three digits, as in 003")
        Order.parse(self.sort)

    @classmethod
    def parse(
        cls,
        words: Iterable[str] = (),
        *,
        kind: str | None = None,
        area: str | None = None,
        modality: str | None = None,
        code: str | None = None,
        data_set: str | None = None,
        name: str | None = None,
        tags: Iterable[str] = (),
        metrics: Iterable[str] = (),
        all_versions: bool = False,
        sort: str = "",
    ) -> Query:
        """From the words of a command line: `tags` are `team=vision` or `team`, `metrics` are `accuracy.test>=0.5`,
        `words` the free text.
        """
        pairs = [tag.partition("=") for tag in tags]
        if any(not key for key, _, _ in pairs):
            raise InvalidInput("a tag is given as name=value, or as its name alone; before '=' there is nothing")
        return cls(
            kind=kind,
            area=area,
            modality=modality,
            code=code,
            data_set=data_set,
            name=name,
            text=" ".join(words),
            tags={key: value if equals else None for key, equals, value in pairs},
            metrics=[MetricCondition.parse(text) for text in metrics],
            all_versions=all_versions,
            sort=sort,
        )

    @property
    def conditions(self) -> Sequence[MetricCondition]:
        return tuple(one for one in self.metrics if isinstance(one, MetricCondition))

    @property
    def order(self) -> Order | None:
        return Order.parse(self.sort)

    @property
    def digest(self) -> str:
        """Equal for queries that ask the same."""
        words = [self.kind, self.area, self.modality, self.code, self.data_set, self.name, self.sort.strip()]
        metrics = sorted(str(condition) for condition in self.conditions)
        asked = [*words, self.text.split(), sorted(self.tags.items()), metrics, self.all_versions]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    def _check_length(self) -> None:
        texts = [self.area, self.modality, self.code, self.data_set, self.name, self.text, self.sort]
        if any(text is not None and len(text) > _MAX_CHARACTERS for text in texts):
            raise InvalidInput(f"a condition has at most {_MAX_CHARACTERS} characters; give a shorter one")
        if len(self.tags) + len(self.metrics) + len(self.text.split()) > _MAX_CONDITIONS:
            raise InvalidInput(f"a query has at most {_MAX_CONDITIONS} tags, metrics and words; give fewer")
