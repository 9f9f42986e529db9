"""Archives taken apart and put together otherwise, and all that a library holds, to see whether it changed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from encephalon.library.library import Library

__all__ = ["holdings", "members", "objects_of", "records_of", "with_contents", "written"]

Members = dict[str, bytes]


async def holdings(library: Library) -> tuple[Mapping[str, tuple[bytes, int]], Mapping[str, bytes]]:
    """Every key with its value and revision, and every object."""
    keys = {entry.key: (entry.value, entry.revision) async for entry in library.key_value.list("/")}
    return keys, await objects_of(library)


async def objects_of(library: Library) -> Mapping[str, bytes]:
    found = [entry.key async for entry in library.objects.list("")]
    return {key: b"".join([chunk async for chunk in library.objects.get(key)]) for key in sorted(found)}


async def records_of(library: Library) -> Mapping[str, bytes]:
    """All that a library knows of records: themselves, summaries, lineage and heads; not who touched which object."""
    root = library.stores.keys.root
    return {
        entry.key: entry.value
        async for entry in library.key_value.list(root)
        if not entry.key.startswith((f"{root}object/", f"{root}writer/"))
    }


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, parts: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip of these members, in this order."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def with_contents(parts: Members, form: str = "encephalon library 1") -> Members:
    """With the contents that tell of these members, as the export would write them."""
    items = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(parts.items())
        if name != "encephalon.json"
    }
    document = {
        "format": form,
        "objects": [{**item, "sha256": name[8:]} for name, item in items.items() if name.startswith("objects/")],
        "records": [{"path": name, **item} for name, item in items.items() if name.startswith("records/")],
    }
    contents = json.dumps(document, indent=1).encode() + b"\n"
    return {"encephalon.json": contents, **{name: parts[name] for name in items}}
