"""Data sets: what was typed, as the options of `library.datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli import screen
from encephalon.cli.library.adding.given import Given, pairs
from encephalon.cli.library.adding.plan import Added, Options, Plan
from encephalon.cli.library.adding.sources import name_of
from encephalon.cli.library.quantities import count
from encephalon.core.errors import InvalidInput
from encephalon.library.datasets import DataSetOptions, add_data_set

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["options_of", "plan"]

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def plan(source: str, given: Given, options: Options) -> Plan:
    """InvalidInput for options that cannot be meant."""
    path = Path(source)
    there = path.exists()
    name = given.name or (name_of(path) if there else source)
    chosen = options_of(given, options)

    async def add(library: Library) -> Added:
        parents = (await given.draft(library, "data_set", name, "")).parents
        with screen.steps(f"Adding {name}") as told:
            target = path if there else source
            record = await add_data_set(library, target, name, replace(chosen, parents=parents), told)
        return Added(record, left_out(record.data_set))

    return Plan("data_set", name, add)


def options_of(given: Given, typed: Options) -> DataSetOptions:
    """InvalidInput for what cannot be read."""
    share, seed = as_share(typed.get("split")), typed.get("seed")
    return DataSetOptions(
        description=given.description,
        tags=given.tags,
        licence=given.licence,
        origin=given.origin,
        metrics=given.metrics,
        alias=given.alias,
        modalities=pairs("--modality", typed.get("modality") or [], "image=picture_path"),
        types=pairs("--type", typed.get("type") or [], "image=image"),
        label=typed.get("label"),
        split=share,
        split_column=None if share is not None else typed.get("split"),
        sample_rate=typed.get("sample_rate"),
        seconds=typed.get("seconds"),
        size=as_size(typed.get("size")),
        colour=typed.get("colour") or "auto",
        skip_broken=bool(typed.get("skip_broken")),
        raw=typed.get("from"),
        seed=seed or 0,
        parameters=dict(parameters_of(typed.get("parameter") or [], seed)),
    )


def left_out(found: pb.DataSet) -> list[str]:
    number = int(found.statistics.get("left_out", 0))
    return [f"left out, because they cannot be read: {count(number, 'sample')}"] if number else []


def as_share(split: str | None) -> float | None:
    """`0.8` is a share that is drawn, a word is a column."""
    try:
        return None if split is None else float(split)
    except ValueError:
        return None


def as_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = SIZE.fullmatch(text.lower())
    if not found:
        raise InvalidInput(f"--size {text[:40]} cannot be read; write height and width in pixels, as in --size 28x28")
    return int(found[1]), int(found[2])


def parameters_of(items: Iterable[str], seed: int | None) -> Iterable[tuple[str, Any]]:
    """Of a recipe: numbers as numbers."""
    if seed is not None:
        yield "seed", seed
    for name, text in pairs("--parameter", items, "snr_db=6").items():
        try:
            yield name, int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            raise InvalidInput(
                f"--parameter {name}={text[:40]} is no number; write it as --parameter snr_db=6"
            ) from None
