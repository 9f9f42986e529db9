"""What `encephalon library add` makes of what is typed, before a library is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from encephalon.areas.importing.files import FORMATS
from encephalon.cli.library.adding import conversion, networks, scenes, sources
from encephalon.cli.library.adding.conversion import Asked
from encephalon.cli.library.adding.data_sets import options_of
from encephalon.cli.library.adding.given import Given, pairs
from encephalon.cli.library.adding.sources import document_of, kind_of, name_of
from encephalon.core.errors import (
    EncephalonError,
    FailedPrecondition,
    Internal,
    InvalidInput,
    InvalidManifest,
    NotFound,
    Unsupported,
)
from encephalon.library.builtins import WEIGHTS
from encephalon.library.datasets.adding import RECIPES
from encephalon.library.datasets.table import TABLES


def touched(folder: Path, name: str, text: str = "") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.safetensors", "", "network"),
        ("a.PT", "", "network"),
        ("a.weights", "", "network"),
        ("a.onnx", "", "network"),
        ("a.csv", "", "data_set"),
        ("a.parquet", "", "data_set"),
        ("a.yaml", "brain: a", "brain"),
        ("a.json", '{"scene": "a"}', "scene"),
    ],
)
def test_what_a_source_is(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert kind_of(str(touched(tmp_path, name, text)), None) == kind


def test_the_ends_of_files_are_those_that_are_read() -> None:
    """They are written down twice, for this program must not import what reads them."""
    assert set(sources.WEIGHTS) == set(FORMATS)
    assert sources.TABLES == TABLES
    assert sources.RECIPES == RECIPES


def test_a_folder_a_recipe_and_what_is_said_to_be(tmp_path: Path) -> None:
    assert kind_of(str(tmp_path), None) == "data_set"
    assert kind_of("avmnist", None) == "data_set"
    assert kind_of(str(touched(tmp_path, "weights.dat")), "networks") == "network"
    assert name_of(tmp_path / "..") == tmp_path.parent.name
    assert name_of(touched(tmp_path, "my.eyes.pt")) == "my.eyes"
    with pytest.raises(InvalidInput, match="give another with --name"):
        name_of(touched(tmp_path, "my eyes.pt"))


def test_a_document_that_is_neither_brain_nor_scene(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither `brain: NAME` nor `scene: NAME`"):
        kind_of(str(touched(tmp_path, "a.yaml", "- 1")), None)
    with pytest.raises(InvalidManifest, match=r"a\.yaml line 1"):
        kind_of(str(touched(tmp_path, "a.yaml", "brain: [")), None)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("scene: a", 1, "needs `goal`, a text; it is missing"),
        ("scene: a\ngoal: [b]", 2, "needs `goal`, a text; it is something else"),
        ("scene: a\ngoal: b", 1, "needs `modalities`"),
        ("scene: a\ngoal: b\nmodalities: []", 3, "needs `modalities`"),
        ("scene: a\ngoal: b\nmodalities: [image, image]", 3, "a list of different names"),
        ("scene: a\ngoal: b\nmodalities: [image]\nlimit: .inf", 1, "which JSON has not"),
        ("scene: a\ngoal: b\nmodalities: [image]\nuntil: 2026-01-01", 1, "which JSON has not"),
    ],
)
def test_a_scene_lacks_something(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    with pytest.raises(InvalidManifest, match=f"a.yaml line {line}: .*{sentence}"):
        scenes.scene_of(document_of(touched(tmp_path, "a.yaml", text)))


def test_a_scene_is_kept_as_it_was_written(tmp_path: Path) -> None:
    text = "scene: a\ngoal: b\nmodalities: {image: {size: 3}, audio: {}}\nbudget: 5"
    scene = scenes.scene_of(document_of(touched(tmp_path, "a.yaml", text)))
    assert list(scene.modalities) == ["image", "audio"]
    assert json.loads(scene.document)["budget"] == 5


@pytest.mark.parametrize(
    ("name", "area", "code", "network"),
    [
        ("a.onnx", None, None, ("graph", "900")),
        ("a.onnx", "vision", None, ("vision", "900")),
        ("a.weights", None, None, ("graph", "901")),
        ("a.pt", "vision", "002", ("vision", "002")),
    ],
)
def test_of_which_network_weights_are(
    tmp_path: Path, name: str, area: str, code: str, network: tuple[str, str]
) -> None:
    assert networks.network_of(touched(tmp_path, name), area, code) == network


def test_our_own_files_say_of_which_network_they_are() -> None:
    assert networks.network_of(WEIGHTS / "hearing-003.safetensors", None, None) == ("hearing", "003")
    assert networks.network_of(WEIGHTS / "hearing-003.safetensors", "vision", "001") == ("vision", "001")


@pytest.mark.parametrize(
    ("name", "text", "area", "code", "error", "sentence"),
    [
        ("a.pt", "", None, None, InvalidInput, "give --area, one of vision, "),
        ("a.pt", "", "vision", None, InvalidInput, "give --code: 001 LeNet3"),
        ("a.pt", "", "visoin", "002", NotFound, "vision"),
        ("a.pt", "", "vision", "999", NotFound, "002 LeNet5"),
        ("a.safetensors", "rubbish", None, None, InvalidInput, "give --area"),
        ("a.safetensors", "\x08\0\0\0\0\0\0\0[1, 2, 3", None, None, InvalidInput, "give --area"),
        ("a.safetensors", "\0\x10\0\0\0\0\0\0" + "[" * 5000, None, None, InvalidInput, "give --area"),
    ],
)
def test_weights_of_no_network(
    tmp_path: Path, name: str, text: str, area: str, code: str, error: type[EncephalonError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        networks.network_of(touched(tmp_path, name, text), area, code)


ASKED = Asked(Path("a.pt"), "vision", "002", cfg=Path("a.cfg"), arguments={"classes": "3"}, rename={"x.": "y."})


def test_how_the_other_process_is_asked() -> None:
    words = ASKED.words(Path("out"))
    assert words[:7] == ["a.pt", "--area", "vision", "--code", "002", "--out", "out"]
    assert replace(ASKED, source=Path("-a.pt")).words(Path("out"))[0] == "./-a.pt"
    assert words[7:] == ["--json", "--cfg", "a.cfg", "--argument", "classes=3", "--rename", "x.=y."]


@pytest.mark.parametrize(
    ("printed", "said", "error", "sentence"),
    [
        ('{"error": {"reason": "Unsupported", "message": "no"}}', "", Unsupported, "no"),
        ('{"error": {"reason": "Unheard", "message": "no"}}', "", Internal, "no"),
        ("", "ModuleNotFoundError: No module named 'torch'", FailedPrecondition, "torch is needed; pip install"),
        ("", "warning\nSegmentation fault", Internal, "a.pt could not be read: Segmentation fault"),
        ("", "", Internal, "it ended with code -9"),
    ],
)
def test_what_the_other_process_says(printed: str, said: str, error: type[EncephalonError], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        conversion.read(ASKED, -9, printed, said)


async def test_the_other_process_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "DEADLINE_S", 0.01)
    with pytest.raises(InvalidInput, match=r"a\.pt could not be read within 0\.01 s"):
        await conversion.converted(ASKED, tmp_path / "out")


def test_what_was_typed_of_a_record() -> None:
    given = Given.read(
        name="a",
        description="",
        tags=["team=a", "draft"],
        metrics=["accuracy.test=0.5"],
        licence="",
        origin="",
        parents=["data_set=x@2", "data_set=y"],
        alias="best",
    )
    assert given.tags == {"team": "a", "draft": ""}
    assert given.metrics == {"accuracy.test": 0.5}
    assert [(role, str(reference)) for role, reference in given.parents] == [
        ("data_set", "x@2"),
        ("data_set", "y@latest"),
    ]
    assert pairs("--rename", ["module.="], "module.=", empty=True) == {"module.": ""}
    with pytest.raises(InvalidInput, match="write it as --argument classes=3"):
        pairs("--argument", ["classes="], "classes=3")
    with pytest.raises(InvalidInput, match="gives 'a' twice"):
        pairs("--rename", ["a=b", "a=c"], "x=y")


def test_what_was_typed_of_a_data_set() -> None:
    options = options_of(Given(), {"split": "0.75", "size": "28x32", "parameter": ["snr_db=6.5", "rank=3"], "seed": 7})
    assert (options.split, options.split_column, options.size, options.seed) == (0.75, None, (28, 32), 7)
    assert options.parameters == {"seed": 7, "snr_db": 6.5, "rank": 3}
    assert options_of(Given(), {"split": "fold"}).split_column == "fold"
    for typed, sentence in (
        ({"size": "28"}, "--size 28x28"),
        ({"split": "1.5"}, "between 0 and 1"),
        ({"parameter": ["rank=three"]}, "rank=three"),
        ({"colour": "blue"}, "'auto', 'grey' or 'rgb'"),
    ):
        with pytest.raises(InvalidInput, match=sentence):
            options_of(Given(), typed)
