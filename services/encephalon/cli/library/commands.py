"""What can be typed behind `encephalon library`. The commands' work is imported when one is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encephalon.cli.completion import complete_kind, complete_reference
from encephalon.cli.library.add import add
from encephalon.cli.library.place import AsJson, Place, placed

__all__ = ["app"]

app = typer.Typer(
    help="The library: areas, networks, data sets, scenes, brains and runs, in versions that never change.",
    no_args_is_help=True,
)

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


app.command()(placed(add))


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
