"""What can be typed behind `encephalon library`. The commands' work is imported when one is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encephalon.cli.completion import complete_kind, complete_reference
from encephalon.cli.library.place import Place, placed

__all__ = ["app"]

app = typer.Typer(
    help="The library: areas, networks, data sets, scenes, brains and runs, in versions that never change.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Kind = Annotated[
    str | None,
    typer.Argument(metavar="KIND", help="area, network, data_set, scene, brain, run.", autocompletion=complete_kind),
]
Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="[kind:]name[@version or alias], as in digits, network:eyes@3, digits@production.",
        autocompletion=complete_reference,
    ),
]
Refs = Annotated[
    list[str],
    typer.Argument(metavar="REF", help="[kind:]name[@version or alias].", autocompletion=complete_reference),
]
NEW, OF_NETWORKS, OF_DATA_SETS = "What the record says", "Networks", "Data sets"


@app.command()
@placed
def ls(
    place: Place,
    kind: Kind = None,
    area: Annotated[str | None, typer.Option(help="For example vision.")] = None,
    code: Annotated[str | None, typer.Option(help="Three digits, of a network.")] = None,
    modality: Annotated[str | None, typer.Option(help="For example image.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="Can be repeated.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="CONDITION", help='As in "accuracy.test>=0.5"; can be repeated.')
    ] = None,
    data_set: Annotated[str | None, typer.Option(help="What it was made from.")] = None,
    text: Annotated[str | None, typer.Option(metavar="WORDS", help="In name, description or tags.")] = None,
    name: Annotated[str | None, typer.Option(metavar="GLOB", help='As in "digits*".')] = None,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Not only the latest of each name.")] = False,
    sort: Annotated[
        str, typer.Option(help="name, created, size, version or metric:NAME; with - before it the highest first.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Records of one page.")] = 50,
    after: Annotated[str, typer.Option(metavar="TOKEN", help="Where the page before has ended.")] = "",
    as_json: AsJson = False,
) -> None:
    """Lists records, a page at a time."""
    from encephalon.cli.library import listing
    from encephalon.library.query import Query

    query = Query.parse(
        [text] if text else [],
        kind=kind,
        area=area,
        modality=modality,
        code=code,
        data_set=data_set,
        name=name,
        tags=tag or [],
        metrics=metric or [],
        all_versions=all_versions,
        sort=sort,
    )
    listing.listed(place, query, limit=limit, after=after, as_json=as_json)


@app.command()
@placed
def show(place: Place, ref: Ref, as_json: AsJson = False) -> None:
    """Shows everything that a record says."""
    from encephalon.cli.library import shown

    shown.shown(place, ref, as_json=as_json)


@app.command()
@placed
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


@app.command()
@placed
def export(
    place: Place,
    ref: Refs,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where it is written; another library imports it.")],
    parents: Annotated[bool, typer.Option("--parents/--no-parents", help="With all that they were made from.")] = True,
    as_json: AsJson = False,
) -> None:
    """Writes records and their bytes into one file."""
    from encephalon.cli.library import moving

    moving.exported(place, ref, to, with_parents=parents, as_json=as_json)


@app.command("import")
@placed
def import_(
    place: Place,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` has written.")],
    expect: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="That `export` said; refuses any other file.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND:NAME=NEW", help="For a name that is another record's here; can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Adds what another library has exported; everything is checked before anything is written."""
    from encephalon.cli.library import moving

    moving.imported(place, file, expect, rename or [], as_json=as_json)


@app.command()
@placed
def alias(
    place: Place,
    ref: Ref,
    name: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="As in production. None: show those that there are.")
    ] = None,
    expected: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only if it points to version N now; 0: if it is new.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Take it away; the versions stay.")] = False,
    as_json: AsJson = False,
) -> None:
    """Points an alias to a version, or shows and drops aliases."""
    from encephalon.cli.library import aliases

    aliases.command(place, ref, name, expected=expected, drop=drop, as_json=as_json)


@app.command()
@placed
def lineage(
    place: Place,
    ref: Ref,
    depth: Annotated[int, typer.Option(min=1, max=100, help="Steps in either direction.")] = 8,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw it into a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Shows what a record was made from, and what was made from it."""
    from encephalon.cli.library import ancestry

    ancestry.shown(place, ref, depth=depth, picture=svg, as_json=as_json)


@app.command()
@placed
def verify(
    place: Place,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the objects' bytes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Checks that all is there and undamaged; ends with 1 when it is not."""
    from encephalon.cli.library import upkeep

    raise typer.Exit(upkeep.verified(place, quick=quick, as_json=as_json))


@app.command()
@placed
def gc(
    place: Place,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="What was touched later than this ago stays: 24h, 30m, 7d.")
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deletes the bytes that no record names any more."""
    from encephalon.cli.library import upkeep

    upkeep.collected(place, grace, dry_run=dry_run, as_json=as_json)


@app.command()
@placed
def du(place: Place, as_json: AsJson = False) -> None:
    """Shows what takes how much room."""
    from encephalon.cli.library import upkeep

    upkeep.used(place, as_json=as_json)


@app.command()
@placed
def remove(place: Place, ref: Ref, as_json: AsJson = False) -> None:
    """Removes one version; refused while an alias or another record refers to it."""
    from encephalon.cli.library import upkeep

    upkeep.removed(place, ref, as_json=as_json)


@app.command()
@placed
def watch(place: Place, kind: Kind = None, as_json: AsJson = False) -> None:
    """Tells every change as it happens, until Ctrl-C; with --json one object per line."""
    from encephalon.cli.library import watching

    watching.watched(place, kind, as_json=as_json)
