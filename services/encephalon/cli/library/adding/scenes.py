"""A scene: what should be achieved. Its three words are checked here; what else it says is kept as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.library.adding.given import Given
from encephalon.cli.library.adding.plan import Added, Options, Plan
from encephalon.cli.library.adding.sources import document_of
from encephalon.core.errors import EncephalonError
from encephalon.library.brains.document import Document
from encephalon.library.records.reference import check_name

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["plan", "scene_of"]


def plan(source: str, given: Given, options: Options) -> Plan:
    """InvalidManifest for what is no scene."""
    path = Path(source)
    document = document_of(path)
    scene = scene_of(document)
    name = check_name(given.name or document.value["scene"])

    async def add(library: Library) -> Added:
        draft = await given.draft(library, "scene", name, path.name)
        draft.scene.CopyFrom(scene)
        draft.description = draft.description or str(document.value.get("description") or "")
        async with library.writing(f"add scene {name}") as writer:
            return Added(await writer.commit(draft, reuse=True, alias=given.alias), [])

    return Plan("scene", name, add)


def scene_of(document: Document) -> pb.Scene:
    """InvalidManifest, with the line, unless it names itself, its goal and its modalities."""
    value = document.value
    if not isinstance(value, dict):
        raise document.error((), "a scene is an object with `scene`, `goal` and `modalities`")
    for word in ("scene", "goal"):
        if not isinstance(value.get(word), str) or not value[word].strip():
            raise unlike(document, word, "a text")
    modalities = value.get("modalities")
    names = list(modalities) if isinstance(modalities, dict | list) else []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise unlike(document, "modalities", "a list of different names, or an object with a name each")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise document.error(
            (), "the scene holds a date or an infinite number, which JSON has not; put it in quotes"
        ) from None
    return pb.Scene(document=text, modalities=names, goal=value["goal"])


def unlike(document: Document, word: str, what: str) -> EncephalonError:
    there = "is something else" if word in document.value else "is missing"
    return document.error((word,), f"a scene needs `{word}`, {what}; it {there}")
