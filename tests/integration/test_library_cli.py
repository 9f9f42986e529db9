"""`encephalon library` as a user types it, on a new library of a laptop."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from encephalon import open_library_blocking
from encephalon.library.builtins import WEIGHTS
from encephalon.state.embedded import key_value_url, objects_url
from tests.command_line import CommandLine
from tests.running import EXAMPLES

DIGITS, PAIR = EXAMPLES / "digits.yaml", EXAMPLES / "pair.yaml"
SCENE = "scene: hall\ngoal: Find the door\nmodalities: [image, audio]\nlimits: {latency_ms: 20}\n"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose library has what is built in and nothing else."""
    folder = tmp_path_factory.mktemp("seeded")
    with open_library_blocking(key_value_url(folder), objects_url(folder), cache_dir=folder / "cache") as library:
        assert library.names("brain") == ["digits"]
    return folder


@pytest.fixture
def command(
    seeded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    return CommandLine(shutil.copytree(seeded, tmp_path / "state"), capsys, monkeypatch)


@pytest.fixture
def unchanged(seeded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """On a library that is not to be changed."""
    return CommandLine(seeded, capsys, monkeypatch)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "hall.yaml"
    path.write_text(SCENE)
    return path


def test_a_new_library_is_not_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = CommandLine(tmp_path / "new", capsys, monkeypatch)
    said = command.library("ls")
    assert re.search(r"^digits +1 production +image, audio", said.out, re.MULTILINE), said.out
    assert re.search(r"^vision/002 +1 vision/002 +\d+ KiB +0\.\d+", said.out, re.MULTILINE), said.out
    assert [line for line in said.out.splitlines() if len(line) > 80] == []
    kinds = {record["kind"] for record in command.json("ls")["records"]}
    assert kinds == {"area", "network", "data_set", "brain"}
    assert command.json("verify") == {"problems": []}


def test_lists_are_filtered_sorted_and_paged(unchanged: CommandLine) -> None:
    found = unchanged.json("ls", "networks", "--area", "vision", "--metric", "accuracy.test>=0.1", "--sort", "-size")
    sizes = [record["size"] for record in found["records"]]
    assert len(sizes) == 4
    assert sizes == sorted(sizes, reverse=True)
    page = unchanged.library("ls", "network", "--limit", "2", "--sort", "name")
    shown = re.findall(r"^(\S+) +\d+ ", page.out, re.MULTILINE)
    again = shlex.split(page.err.removeprefix("More: encephalon library"))
    after = again[again.index("--after") + 1]
    rest = unchanged.json("ls", "network", "--sort", "name", "--after", after)
    everything = unchanged.json("ls", "network", "--sort", "name")["records"]
    assert len(shown) == 2
    assert [record["name"] for record in rest["records"]] == [record["name"] for record in everything][2:]
    assert unchanged.library("ls", "run").out == "There is none.\n"
    assert unchanged.library("ls", "--text", "nothing like it").out == "No record fits.\n"


def test_everything_of_a_record_is_shown(unchanged: CommandLine) -> None:
    brain = unchanged.library("show", "digits").out
    for part in (
        "brain:digits@1",
        "production",
        "Regions",
        "network:vision/002@1",
        "image (optional)",
        "UINT8 [?, ?, ?]",
    ):
        assert part in brain
    network = unchanged.library("show", "network:vision/002@1").out
    for part in ("LeNet5", "sha256", "accuracy.test", "Made from", "area:vision@1", "Made from this", "brain:digits@1"):
        assert part in network
    document = unchanged.json("show", "vision/002")
    assert document["network"]["weights"]["size"] == (WEIGHTS / "vision-002.safetensors").stat().st_size
    assert {"record": "brain:digits@1", "role": "network"} in document["children"]
    assert document["versions"] == [1]
    assert "Splits" in unchanged.library("show", "avmnist-sample").out
    assert "SparseNet" in unchanged.library("show", "area:vision").out


def test_a_scene_in_versions_with_parents_and_aliases(command: CommandLine, scene: Path) -> None:
    added = command.library("add", scene, "--parent", "data_set=avmnist-sample", "--tag", "team=a", "--alias", "best")
    assert added.out == "added: scene:hall@1\n"
    again = command.json("add", scene, "--parent", "data_set=avmnist-sample", "--tag", "team=a")["records"]
    assert [(record["version"], record["unchanged"]) for record in again] == [(1, True)]
    assert command.library("add", scene).out == "added: scene:hall@2\n"
    assert command.json("show", "hall@best")["parents"][0]["role"] == "data_set"
    assert json.loads(command.json("show", "hall")["scene"]["document"])["limits"] == {"latency_ms": 20}
    assert command.library("alias", "hall", "best").out == "scene:hall@best is version 2, before 1.\n"
    assert command.refused("alias", "hall@1", "best", "--expected", "1", code=1).endswith("look again before moving it")
    assert command.json("alias", "hall@1", "best", "--expected", "2")["previous"] == [1, 2]
    assert re.search(r"^best +1 +2, 1 ", command.library("alias", "hall").out, re.MULTILINE)
    assert set(command.json("alias", "hall")["aliases"]) == {"best", "latest"}
    assert "in use by the alias 'best'" in command.refused("remove", "hall@1", code=1)
    assert command.json("alias", "hall", "best", "--drop")["dropped"] == "best"
    assert "it has 1, 2" in command.refused("remove", "hall")
    assert command.library("remove", "hall@1").out.startswith("scene:hall@1 is removed;")
    assert [record["version"] for record in command.json("ls", "scene", "--all-versions")["records"]] == [2]


def test_a_brain_of_what_is_built_in_is_pinned(command: CommandLine) -> None:
    assert command.library("add", DIGITS, "--name", "mine", "--alias", "production").out == "added: brain:mine@1\n"
    assert command.library("add", DIGITS, "--name", "mine").out == "unchanged: brain:mine@1\n"
    assert command.library("add", PAIR).out == "added: brain:pair@1\n"
    regions = json.loads(command.json("show", "mine")["brain"]["manifest"])["regions"]
    assert all(region["weights"].startswith("object:sha256:") for region in regions.values())


def test_lineage_as_a_tree_and_as_a_picture(unchanged: CommandLine, tmp_path: Path) -> None:
    tree = unchanged.library("lineage", "vision/002").out
    assert "made from" in tree
    assert "area:vision@1" in tree
    assert "brain:digits@1" in tree
    assert unchanged.json("lineage", "vision/002")["made_from"] == [{"record": "area:vision@1", "role": "area"}]
    picture = tmp_path / "lineage.svg"
    assert str(picture) in unchanged.library("lineage", "digits", "--svg", picture).out.replace("\n", "")
    assert picture.read_text().startswith("<svg")
    assert "--depth 1" in unchanged.library("lineage", "area:vision", "--depth", "1").err
    assert "cannot write" in unchanged.refused("lineage", "digits", "--svg", tmp_path / "no" / "where.svg")


def test_what_one_library_exports_another_imports(
    command: CommandLine, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.library("add", scene, "--parent", "data_set=avmnist-sample")
    out = tmp_path / "hall.zip"
    exported = command.json("export", "hall", "digits", "--to", out)
    assert {"scene:hall@1", "brain:digits@1", "data_set:avmnist-sample@1"} <= set(exported["records"])
    assert exported["size"] == out.stat().st_size
    monkeypatch.setenv("ENCEPHALON_STATE_DIR", str(tmp_path / "other"))
    imported = command.json("import", out, "--expect", exported["digest"])
    assert imported["added"] == ["scene:hall@1"]
    assert (
        command.library("import", out).out
        == f"{len(imported['records'])} of {len(imported['records'])} records here already.\n"
    )
    back = tmp_path / "back.zip"
    command.library("export", "hall", "digits", "--to", back)
    assert back.read_bytes() == out.read_bytes()
    assert command.json("verify") == {"problems": []}
    renamed = command.library("import", out, "--rename", "scene:hall=corridor")
    assert renamed.out.splitlines()[0] == "added: scene:corridor@1"


def test_a_file_that_was_cut_off_changes_nothing(command: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "digits.zip"
    command.library("export", "digits", "--to", out)
    out.write_bytes(out.read_bytes()[:-1000])
    assert "was cut off" in command.refused("import", out, code=1)
    out.write_text("no archive")
    command.refused("import", out, code=1)
    assert command.json("verify", "--quick") == {"problems": []}


def test_data_sets_from_folders_and_tables(command: CommandLine, tmp_path: Path) -> None:
    from PIL import Image

    for name, shade in (("day", 200), ("night", 20)):
        (tmp_path / "skies" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (6, 4), shade + number).save(tmp_path / "skies" / name / f"{number}.png")
    (tmp_path / "skies" / "day" / "broken.png").write_bytes(b"no picture")
    assert "day/broken.png" in command.refused("add", tmp_path / "skies")
    said = command.library(
        "add", tmp_path / "skies", "--skip-broken", "--split", "0.75", "--size", "2x3", "--metric", "a=1"
    )
    assert said.out == "added: data_set:skies@1\n"
    assert "left out, because they cannot be read: 1 sample" in said.err
    body = command.json("show", "skies")["data_set"]
    assert [(split["name"], split["samples"]) for split in body["splits"]] == [("train", 6), ("test", 2)]
    assert body["modalities"][0]["shape"] == [2, 3]
    table = tmp_path / "table.csv"
    table.write_text("picture,sky\nskies/day/0.png,day\nskies/night/0.png,night\n")
    typed = ("--modality", "image=picture", "--label", "sky", "--alias", "best", "--parent", "data_set=skies")
    assert command.library("add", table, *typed).out == "added: data_set:table@1\n"
    assert command.library("add", table, *typed).out == "unchanged: data_set:table@1\n"
    assert command.json("show", "table@best")["parents"][0]["record"]["name"] == "skies"
    assert [record["name"] for record in command.json("ls", "--data-set", "skies")["records"]] == ["table"]


def test_garbage_goes_when_it_is_old(command: CommandLine, scene: Path) -> None:
    command.library("add", DIGITS, "--name", "mine")
    before = command.json("du")
    assert before["unreached"] == 0
    assert "all objects" in command.library("du").out
    command.library("remove", "data_set:avmnist-sample@1")
    sample = command.json("du")["unreached"]
    assert sample > 1_000_000
    assert command.json("gc") == {"objects": 0, "bytes": 0, "left": before["objects"], "spared": 1, "dry_run": False}
    assert command.json("gc", "--grace", "0", "--dry-run")["bytes"] == sample
    assert command.library("gc", "--grace", "0").out.startswith("1 object (")
    assert command.json("du")["bytes"] == before["bytes"] - sample


def test_damage_is_found(command: CommandLine) -> None:
    command.library("ls")
    largest = max(
        (command.folder / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    largest.chmod(0o600)
    with largest.open("r+b") as file:
        file.write(b"damage")
    said = command.run("library", "verify", "--json")
    assert said.code == 1
    assert [problem["what"] for problem in said.document["problems"]] == ["object"]
    assert "Problems" in command.run("library", "verify").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show", "digitz"], "did you mean 'brain:digits'"),
        (["show", "digits@produktion"], "did you mean 'production'"),
        (["show", "digits@7"], "has no version 7"),
        (["show", "network:digits"], "there is no network 'digits'"),
        (["show", "a b"], "is no name of a record"),
        (["ls", "brian"], "did you mean 'brain'"),
        (["ls", "--sort", "creatd"], "did you mean 'created'"),
        (["ls", "--metric", "accuracy"], "accuracy.test>=0.5"),
        (["ls", "--after", "rubbish"], "rubbish"),
        (["ls", "--limit", "0"], "--limit"),
        (["ls", "--area", "visoin"], "did you mean 'vision'"),
        (["lineage", "digitz"], "did you mean 'brain:digits'"),
        (["alias", "digits", "--drop"], "say which alias of digits is meant"),
        (["alias", "digits", "latest"], "follows every new version by itself"),
        (["gc", "--grace", "soon"], "write seconds, or 15m, 24h, 7d"),
        (["export", "digits", "--to", "/"], "is a folder"),
        (["import", "/no/such.zip"], "cannot be read"),
        (["add", "/no/such.yaml"], "there is no file"),
        (["add", "avminst"], "did you mean avmnist"),
        (["add", str(WEIGHTS / "README.md")], "like nothing that the library keeps"),
        (["add", str(DIGITS), "--area", "vision"], "--area belongs to a network"),
        (["add", str(DIGITS), "--kind", "run"], "not made from a file"),
        (["add", str(DIGITS), str(PAIR), "--name", "x"], "add them one by one"),
        (["add", str(DIGITS), "--metric", "a=much"], "which is no number"),
        (["add", str(DIGITS), "--parent", "digits"], "--parent data_set=avmnist@1"),
        (["add", str(DIGITS), "--parent", "run=nobody"], "there is no record 'nobody'"),
        (["add", str(DIGITS), "--alias", "1st"], "is neither a version nor an alias"),
        (["remov"], "Did you mean 'remove'?"),
        (["ls", "--etcd", "127.0.0.1:1"], "give --minio as well"),
        (["ls", "--etcd", "nowhere"], "--etcd 127.0.0.1:2379"),
        (["ls", "--minio", "nowhere"], "minio://access:secret@host:port/bucket"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(unchanged: CommandLine, words: list[str], sentence: str) -> None:
    said = unchanged.refused(*words)
    assert sentence in said
    assert "unexpected" not in said
