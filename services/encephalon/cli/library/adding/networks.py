"""Networks: a file of weights becomes a record and an object."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli import screen
from encephalon.cli.library.adding.conversion import Asked, converted
from encephalon.cli.library.adding.given import Given, pairs
from encephalon.cli.library.adding.plan import Added, Options, Plan
from encephalon.cli.library.adding.sources import name_of
from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.areas import AREAS, find_area
from encephalon.library.records import Reference

if TYPE_CHECKING:
    from encephalon.library.library import Library
    from encephalon.library.store.writer import Writer

__all__ = ["plan", "put"]

GRAPHS: Final = {".onnx": ("graph", "900"), ".weights": ("graph", "901")}
"""What a file that brings its own graph is, where nothing else is said."""

HEADER_BYTES: Final = 1 << 20


def plan(source: str, given: Given, options: Options) -> Plan:
    """InvalidInput and NotFound unless the network is one that there is."""
    path = Path(source)
    name = given.name or name_of(path)
    asked = Asked(
        path,
        *network_of(path, options.get("area"), options.get("code")),
        cfg=options.get("cfg"),
        arguments=pairs("--argument", options.get("argument") or [], "classes=10"),
        rename=pairs("--rename", options.get("rename") or [], "module.=", empty=True),
    )

    async def add(library: Library) -> Added:
        async with library.writing(f"add network {name}") as writer:
            return await put(library, writer, asked, name, given)

    return Plan("network", name, add)


def network_of(path: Path, area: str | None, code: str | None) -> tuple[str, str]:
    """Area and code, as typed, else as the file says. InvalidInput when neither does."""
    usual_area, usual_code = GRAPHS.get(path.suffix.lower()) or said_in(path)
    if code is None and (area in (None, usual_area) or usual_code == "900"):
        code = usual_code
    if area is None and code in (None, usual_code):
        area = usual_area
    if area is None:
        raise InvalidInput(
            f"{path.name} does not say what it is of; give --area, one of {', '.join(AREAS)}, and --code"
        )
    known = find_area(area)
    if code is None:
        there = ", ".join(f"{one} {title}" for one, title in known.networks.items())
        raise InvalidInput(f"{path.name} does not say of which network of area '{area}' it is; give --code: {there}")
    known.check(code)
    return area, code


def said_in(path: Path) -> tuple[str, str] | tuple[None, None]:
    """What a safetensors file that Encephalon wrote says in its header; whether it is true is found out later."""
    if path.suffix.lower() != ".safetensors":
        return None, None
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= HEADER_BYTES else b""
    try:
        metadata = json.loads(header)["__metadata__"]
        area, slash, code = str(metadata["architecture"]).partition("/")
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, None
    return (area, code) if slash else (None, None)


async def put(library: Library, writer: Writer, asked: Asked, name: str, given: Given) -> Added:
    with tempfile.TemporaryDirectory(prefix="encephalon-network-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "weights"
        with screen.bar(f"Reading {asked.source.name}", None):
            found = await converted(asked, out)
        draft = await given.draft(library, "network", name, asked.source.name)
        draft.network.CopyFrom(found.network)
        draft.parents.extend(await area_of(library, asked.area))
        total = out.stat().st_size
        with screen.transfer(f"Storing {asked.source.name}") as told:
            stored = await writer.put_file(out, progress=lambda done: told(done, total))
        draft.network.weights.CopyFrom(stored)
        return Added(await writer.commit(draft, reuse=True, alias=given.alias), found.notes)


async def area_of(library: Library, area: str) -> list[pb.Parent]:
    """The area's record as a parent; none where the library does not keep it."""
    try:
        found = await library.resolve(Reference(area, kind="area"))
    except NotFound:
        return []
    return [pb.Parent(record=found.message, role="area")]
