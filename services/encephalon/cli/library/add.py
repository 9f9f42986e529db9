"""What can be typed behind `encephalon library add`: what any record says, and what belongs to one kind only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encephalon.cli.completion import complete_kind
from encephalon.cli.library.place import AsJson, Place

__all__ = ["add"]

NEW, OF_NETWORKS, OF_DATA_SETS = "What the record says", "Networks", "Data sets"


def add(
    place: Place,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Weights (.safetensors .pt .pth .weights .onnx), a folder, .csv or .parquet, the word avmnist, "
            "or a brain or scene as .yaml or .json.",
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="Overrules what the source looks like.", autocompletion=complete_kind),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the source's.", rich_help_panel=NEW)] = None,
    description: Annotated[str, typer.Option(rich_help_panel=NEW)] = "",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="Can be repeated.", rich_help_panel=NEW)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="As in accuracy.test=0.97.", rich_help_panel=NEW),
    ] = None,
    licence: Annotated[str, typer.Option(metavar="SPDX", rich_help_panel=NEW)] = "",
    origin: Annotated[
        str, typer.Option(help="A URL or a paper. Default: the source's name.", rich_help_panel=NEW)
    ] = "",
    parent: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=REF", help="As in data_set=avmnist@1.", rich_help_panel=NEW),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Moved to the new version at once.", rich_help_panel=NEW)] = None,
    area: Annotated[str | None, typer.Option(help="For example vision.", rich_help_panel=OF_NETWORKS)] = None,
    code: Annotated[
        str | None, typer.Option(help="Of the architecture, three digits.", rich_help_panel=OF_NETWORKS)
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the architecture.", rich_help_panel=OF_NETWORKS),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A tensor, or the beginning of its name.", rich_help_panel=OF_NETWORKS),
    ] = None,
    cfg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Darknet's, to .weights.", rich_help_panel=OF_NETWORKS)
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN", help="Of a table: a column that names files.", rich_help_panel=OF_DATA_SETS
        ),
    ] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="NAME=TYPE",
            help="Of a modality: image, audio, text, number.",
            rich_help_panel=OF_DATA_SETS,
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of a table: the classes.", rich_help_panel=OF_DATA_SETS)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|COLUMN", help="0.8 draws what is for training; or a column.", rich_help_panel=OF_DATA_SETS
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Scales pictures.", rich_help_panel=OF_DATA_SETS)
    ] = None,
    colour: Annotated[
        str | None, typer.Option(metavar="auto|grey|rgb", help="Converts pictures.", rich_help_panel=OF_DATA_SETS)
    ] = None,
    sample_rate: Annotated[int | None, typer.Option(help="Resamples sounds, Hz.", rich_help_panel=OF_DATA_SETS)] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Cuts sounds, or follows them by silence.", rich_help_panel=OF_DATA_SETS)
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leaves out what cannot be read.", rich_help_panel=OF_DATA_SETS)
    ] = False,
    raw: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Raw files of avmnist.", rich_help_panel=OF_DATA_SETS),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Of avmnist, as snr_db=6.", rich_help_panel=OF_DATA_SETS),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw.", rich_help_panel=OF_DATA_SETS)] = None,
    as_json: AsJson = False,
) -> None:
    """Adds a network, a data set, a brain or a scene; what it is follows from the source."""
    from encephalon.cli.library.adding import added
    from encephalon.cli.library.adding.given import Given

    given = Given.read(
        name=name,
        description=description,
        tags=tag or [],
        metrics=metric or [],
        licence=licence,
        origin=origin,
        parents=parent or [],
        alias=alias,
    )
    particular: dict[str, dict[str, object]] = {
        "network": {"area": area, "code": code, "argument": argument, "rename": rename, "cfg": cfg},
        "data_set": {
            "modality": modality,
            "type": type_,
            "label": label,
            "split": split,
            "size": size,
            "colour": colour,
            "sample_rate": sample_rate,
            "seconds": seconds,
            "skip_broken": skip_broken,
            "from": raw,
            "parameter": parameter,
            "seed": seed,
        },
    }
    added(place, source, kind, given, particular, as_json=as_json)
