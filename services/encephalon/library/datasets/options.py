"""What may be chosen when a data set comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.datasets.sounds import LEAST_HZ, MOST_HZ

__all__ = ["DataSetOptions"]

_APART = ("description", "tags", "licence", "origin", "metrics", "parents", "alias", "parameters", "raw")
"""What the record says elsewhere, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetOptions:
    """Everything beside the source and the name. Raises `InvalidInput` for a value out of range."""

    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    """SPDX identifier, or the licence's name; a recipe knows its own."""
    origin: str = ""
    """A URL, a paper; by default the source's name."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: Sequence[pb.Parent] = ()
    """What it was made from, for example the data set that it is a part of."""
    alias: str | None = None
    """Moved to the new version in the same step."""

    seed: int = 0
    """Decides the drawn split and the order in which the samples are laid down."""
    split: float | None = None
    """Share of each class that goes to `train`, the rest to `test`; None: the source says, or all is `train`."""
    shuffle: bool = True
    """Lays samples of files down in a drawn order: a folder lists one class after the other, and a reader shuffles
    within a few shards only. AV-MNIST keeps its own order."""
    skip_broken: bool = False
    """Leaves broken files out, and counts them in the record; else one broken file refuses the whole set."""

    size: tuple[int, int] | None = None
    """Height and width in pixels that every picture is scaled to; None: as they are."""
    colour: str = "auto"
    """"auto": grey when all pictures are grey, else RGB, and transparency is refused; "grey", "rgb": converted."""
    sample_rate: int | None = None
    """Hz that every sound is resampled to; None: all must have the same rate."""
    seconds: float | None = None
    """Length of every sound, cut or followed by silence; None: as they are."""

    modalities: Mapping[str, str] = field(default_factory=dict)
    """Of a table: modality to column, as in {"image": "picture_path"}; empty: every column that names files."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Of a table: modality to "image", "audio", "text" or "number"; else told by the first value."""
    label: str | None = None
    """Column of the label; None: "label" or "class" if the table has one."""
    split_column: str | None = None
    """Column that names each row's split; None: "split" if the table has one."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of a recipe, as `avmnist.Parameters` names them."""
    raw: Path | None = None
    """Of a recipe: the folder with the raw files; None: they are downloaded."""

    def __post_init__(self) -> None:
        self._check("split", self.split is None or 0 < self.split < 1, "a share between 0 and 1")
        self._check("seed", 0 <= self.seed < 2**63, "an integer from 0 to 2**63 - 1")
        height, width = self.size or (1, 1)
        self._check("size", 1 <= height <= 8192 and 1 <= width <= 8192, "a height and a width from 1 to 8192 pixels")
        self._check("colour", self.colour in ("auto", "grey", "rgb"), "'auto', 'grey' or 'rgb'")
        rate = self.sample_rate
        self._check("sample_rate", rate is None or LEAST_HZ <= rate <= MOST_HZ, f"{LEAST_HZ} to {MOST_HZ} Hz")
        self._check("seconds", self.seconds is None or 0 < self.seconds <= 600, "more than 0 and at most 600 seconds")
        kinds = {"image", "audio", "text", "number"}
        self._check("types", set(self.types.values()) <= kinds, f"types out of {', '.join(sorted(kinds))}")
        known = set(self.types) <= set(self.modalities)
        self._check("types", known, "types of the modalities that are named")

    def as_parameters(self) -> dict[str, Any]:
        """Those that decide what is in the data set and are not as they are by default; JSON values."""
        found = {}
        for each in fields(self):
            value, default = getattr(self, each.name), each.default if each.default is not MISSING else {}
            if each.name not in _APART and value != default:
                found[each.name] = dict(value) if isinstance(value, Mapping) else value
        return found

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InvalidInput(f"{name} is {getattr(self, name)!r}, expected {expected}", option=name)
