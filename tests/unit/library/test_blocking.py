"""The library of a program without an event loop."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import encephalon
from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.query import Query
from encephalon.state.embedded import key_value_url, objects_url


def scene(goal: str) -> pb.Record:
    body = pb.Scene(document="{}", modalities=["image"], goal=goal)
    return pb.Record(id=pb.Reference(kind=pb.KIND_SCENE, name="hall"), scene=body)


def test_the_names_of_the_library_without_await(tmp_path: Path) -> None:
    stores = key_value_url(tmp_path), objects_url(tmp_path)
    with encephalon.open_library_blocking(*stores, cache_dir=tmp_path / "cache", seed=False) as library:
        assert library.add(scene("find the door")).id.version == 1
        with library.writing("test") as writer:
            assert writer.put_bytes(b"abc").size == 3
            assert writer.commit(scene("find the key"), alias="best").id.version == 2
        assert library.show("hall@best").scene.goal == "find the key"
        assert [item.id.name for item in library.ls(Query(kind="scene"))] == ["hall"]
        events = library.watch()
        assert next(events).what == "watching"
        library.alias("hall@1", "best", expected=2)
        assert next(events).version == 1
        events.close()
        with pytest.raises(encephalon.NotFound, match="did you mean 'scene:hall'"):
            library.show("hal")


def test_it_says_what_it_takes() -> None:
    given = inspect.signature(encephalon.open_library_blocking).parameters
    assert given == inspect.signature(encephalon.open_library).parameters
    assert encephalon.open_library_blocking.__name__ == "open_library_blocking"
