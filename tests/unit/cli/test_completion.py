"""What is completed, from words as shells tell them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.completion import BEFORE, complete_kind, offered, together, words_as_typed
from encephalon.library.library import Library
from encephalon.state import open_key_value, open_objects
from encephalon.state.embedded import key_value_url, objects_url
from tests.command_line import logs_as_before


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    with logs_as_before():
        yield


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A library with the scenes `hall` (two versions, the first is `best`) and `haystack`, and the area `hall`."""
    async with open_key_value(key_value_url(tmp_path)) as store, open_objects(objects_url(tmp_path)) as objects:
        library = Library(store, objects)
        for name, goal in (("hall", "one"), ("hall", "two"), ("haystack", "one"), ("team/hay", "one")):
            scene = pb.Scene(document="{}", modalities=["image"], goal=goal)
            await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_SCENE, name=name), scene=scene))
        area = pb.Area(networks={"001": "First"}, package="encephalon")
        await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_AREA, name="hall"), area=area))
        await library.alias("scene:hall@1", "best")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("ha", ["hall", "haystack"]),
        ("hay", ["haystack"]),
        ("team/", ["team/hay"]),
        ("x", []),
        ("scene:ha", ["scene:hall", "scene:haystack"]),
        ("area:ha", ["area:hall"]),
        ("nothing:ha", []),
        ("haystack@", ["haystack@latest", "haystack@1"]),
        ("scene:hall@", ["scene:hall@latest", "scene:hall@best", "scene:hall@2", "scene:hall@1"]),
        ("scene:hall@b", ["scene:hall@best"]),
        ("nobody@", []),
    ],
)
def test_names_aliases_and_versions(folder: Path, typed: str, offers: list[str]) -> None:
    assert [text for text, _ in offered({"state_dir": folder}, ("area", "scene"), typed)] == offers


def test_a_name_of_two_kinds_is_offered_once_and_says_so(folder: Path) -> None:
    assert ("hall", "area, scene") in offered({"state_dir": folder}, ("area", "scene"), "hall")
    assert ("hall", "scene") in offered({"state_dir": folder}, ("scene",), "hall")


def test_what_is_away_offers_nothing_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    assert offered({"state_dir": nowhere}, ("scene",), "ha") == []
    assert not nowhere.exists()
    assert offered({"etcd": "127.0.0.1:1"}, ("scene",), "ha") == []
    assert offered({"etcd": "rubbish"}, ("scene",), "ha") == []
    (tmp_path / "state.db").write_text("no database")
    assert offered({"state_dir": tmp_path}, ("scene",), "ha") == []
    assert capsys.readouterr() == ("", "")


def test_kinds() -> None:
    assert complete_kind("") == ["area", "network", "data_set", "scene", "brain", "run"]
    assert complete_kind("n") == ["network"]


@pytest.mark.parametrize(
    ("words", "cursor", "joined", "at", "before"),
    [
        ("e library show ha", 3, "e library show ha", 3, ""),
        ("e library show hall @", 4, "e library show hall@", 3, "hall@"),
        ("e library show hall @ be", 5, "e library show hall@be", 3, "hall@"),
        ("e library show scene : ha", 5, "e library show scene:ha", 3, "scene:"),
        ("e library show scene : hall @ be", 7, "e library show scene:hall@be", 3, "scene:hall@"),
        ("e library show --etcd = h : 1 ha", 8, "e library show --etcd=h:1 ha", 4, ""),
        ("e library show ", 3, "e library show ", 3, ""),
        ("e library show", 3, "e library show ", 3, ""),
        ("e library show hall @ 1 x", 6, "e library show hall@1 x", 4, ""),
    ],
)
def test_bash_breaks_words_which_are_put_together(words: str, cursor: int, joined: str, at: int, before: str) -> None:
    assert together(words.split(" "), cursor) == (joined.split(" "), at, before)


@pytest.mark.parametrize("between", [" ", "\n"])
def test_bash_is_told_only_the_piece_that_it_replaces(between: str) -> None:
    words = between.join(["e", "x", "hall", "@", "be"])
    environment = {"_ENCEPHALON_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    words_as_typed(environment)
    assert environment["COMP_WORDS"].split(between) == ["e", "x", "be"]
    assert (environment["COMP_CWORD"], environment[BEFORE]) == ("2", "hall@")
    untouched = {"COMP_WORDS": "e x hall @ be"}
    words_as_typed(untouched)
    assert untouched == {"COMP_WORDS": "e x hall @ be"}
