from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.errors import AlreadyExists, Corrupt, EncephalonError, FailedPrecondition, InvalidInput, NotFound
from encephalon.library import avmnist
from encephalon.library.avmnist import builder, digests, pictures
from encephalon.library.avmnist.parameters import NOISE_CLASSES
from tests.unit.library.raw_folder import make_raw_folder

SMALL = {"train_pairs": 60, "test_pairs": 20, "window_seconds": 0.5}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_raw_folder(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def names(raw: Path) -> list[str]:
    return list(digests.scan(raw))


@pytest.fixture(scope="module")
def built(raw: Path, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return avmnist.build(raw, names, tmp_path_factory.mktemp("built") / "av", avmnist.Parameters(**SMALL))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shapes_types_and_the_order_of_the_labels(built: Path, raw: Path) -> None:
    for split, count, file in (("train", 60, "train"), ("test", 20, "t10k")):
        pairs = avmnist.open_split(built, split)  # type: ignore[arg-type]
        assert len(pairs) == count
        assert (pairs.images.shape, pairs.images.dtype) == ((count, 28, 28), np.uint8)
        assert (pairs.audio.shape, pairs.audio.dtype) == ((count, 4_000), np.int16)
        assert pairs.labels.dtype == np.int64
        labels = pictures.read_idx(raw / "mnist" / f"{file}-labels-idx1-ubyte.gz")
        np.testing.assert_array_equal(pairs.labels, labels[:count])


def test_each_sound_says_its_label_and_the_splits_share_neither_recording_nor_noise_class(built: Path) -> None:
    description = avmnist.describe(built)
    heard: dict[str, set[str]] = {}
    for split in ("train", "test"):
        pairs = avmnist.open_split(built, split)  # type: ignore[arg-type]
        stems = [Path(description.recordings[at]).stem.split("_") for at in pairs.recordings]
        assert [int(digit) for digit, _, _ in stems] == pairs.labels.tolist()
        assert {int(take) >= 40 for _, _, take in stems} == {split == "test"}
        heard[split] = {description.noises[at].split("/")[1] for at in pairs.noises}
    assert heard["test"] <= set(description.parameters.test_noise)
    assert not heard["train"] & heard["test"]


def test_the_same_parameters_give_the_same_bytes(built: Path, raw: Path, names: list[str], tmp_path: Path) -> None:
    again = avmnist.build(raw, names, tmp_path / "again", avmnist.Parameters(**SMALL))
    assert content(again) == content(built)
    other = avmnist.build(raw, names, tmp_path / "other", avmnist.Parameters(**SMALL, seed=1))
    changed = {name for name, data in content(other).items() if data != content(built)[name]}
    assert {"train-audio.npy", "test-audio.npy", "dataset.json"} <= changed
    assert "train-images.npy" not in changed


def test_fewer_pairs_are_a_beginning_of_more(built: Path, raw: Path, names: list[str], tmp_path: Path) -> None:
    fewer = avmnist.build(
        raw, names, tmp_path / "few", avmnist.Parameters(**{**SMALL, "train_pairs": 7, "test_pairs": 3})
    )
    for split, count in (("train", 7), ("test", 3)):
        few, more = avmnist.open_split(fewer, split), avmnist.open_split(built, split)  # type: ignore[arg-type]
        np.testing.assert_array_equal(few.audio, more.audio[:count])
        np.testing.assert_array_equal(few.images, more.images[:count])


def test_the_description_tells_parameters_statistics_and_attribution(built: Path) -> None:
    description = avmnist.describe(built)
    assert description.parameters == avmnist.Parameters(**SMALL)
    assert description.statistics["train"]["pairs"] == 60
    assert sum(description.statistics["test"]["per_label"]) == 20
    assert 0 < description.statistics["kept_energy"] < 1
    assert [one["licence"] for one in description.attribution] == ["CC BY-SA 3.0", "CC BY-SA 4.0", "CC BY 3.0"]
    avmnist.check(built)


def test_building_again_changes_nothing_and_never_overwrites(built: Path, raw: Path, names: list[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    assert avmnist.build(raw, names, built, avmnist.Parameters(**SMALL)) == built
    assert before == {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    with pytest.raises(AlreadyExists, match="is not this data set"):
        avmnist.build(raw, names, built, avmnist.Parameters(**SMALL, seed=9))


def test_a_folder_with_other_things_is_left_alone(raw: Path, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(AlreadyExists):
        avmnist.build(raw, names, tmp_path / "mine", avmnist.Parameters(**SMALL))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_what_fails_leaves_nothing_and_what_was_killed_is_swept(raw: Path, names: list[str], tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int | None) -> None:
        if what == "mixing test":
            raise KeyboardInterrupt

    killed = tmp_path / f".av.building-{2**22 + 1}"  # above the largest process id of Linux
    killed.mkdir()
    running = tmp_path / f".av.building-{os.getppid()}"
    running.mkdir()
    with pytest.raises(KeyboardInterrupt):
        avmnist.build(raw, names, tmp_path / "av", avmnist.Parameters(**SMALL), stop)
    assert list(tmp_path.iterdir()) == [running]


def test_progress_tells_of_every_stage(raw: Path, names: list[str], tmp_path: Path) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    avmnist.build(
        raw, names, tmp_path / "av", avmnist.Parameters(**SMALL), lambda *news: told.update({news[0]: news[1:]})
    )
    assert told["mixing train"] == (60, 60)
    assert told["mixing test"] == (20, 20)
    assert {"fitting principal components", "reading sounds"} <= told.keys()


@pytest.mark.parametrize(
    ("name", "damage", "error", "sentence"),
    [
        ("fsdd/recordings/3_ada_40.wav", None, NotFound, "3_ada_40.wav is missing"),
        ("fsdd/recordings/3_ada_40.wav", b"no sound", Corrupt, "3_ada_40.wav is damaged"),
        ("esc10/002 - Rain/1-1-A.ogg", b"", Corrupt, "1-1-A.ogg is damaged"),
        ("mnist/t10k-labels-idx1-ubyte.gz", b"\x1f\x8b", Corrupt, "t10k-labels-idx1-ubyte.gz is damaged"),
        ("mnist/train-images-idx3-ubyte.gz", None, NotFound, "train-images-idx3-ubyte.gz is missing"),
    ],
)
def test_a_bad_raw_file_is_named(
    tmp_path: Path, name: str, damage: bytes | None, error: type[EncephalonError], sentence: str
) -> None:
    raw = make_raw_folder(tmp_path / "raw")
    expected = digests.scan(raw)
    digests.verify(raw, expected)
    if damage is None:
        (raw / name).unlink()
    else:
        (raw / name).write_bytes(damage)
    with pytest.raises(error, match=sentence):
        digests.verify(raw, expected)
    with pytest.raises(error, match=sentence):
        avmnist.build(raw, list(expected), tmp_path / "av", avmnist.Parameters(**SMALL))
    assert not (tmp_path / "av").exists()


def test_a_missing_raw_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere is missing; it should hold mnist"):
        avmnist.get(tmp_path / "nowhere", tmp_path / "av")


def test_a_changed_byte_is_found(built: Path, raw: Path, names: list[str], tmp_path: Path) -> None:
    copy = avmnist.build(raw, names, tmp_path / "copy", avmnist.Parameters(**SMALL))
    with (copy / "test-audio.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(Corrupt, match=r"test-audio\.npy is damaged"):
        avmnist.check(copy)
    (copy / "test-audio.npy").write_bytes(b"")
    with pytest.raises(Corrupt, match=r"test-audio\.npy is damaged"):
        avmnist.open_split(copy, "test")
    (copy / "test-audio.npy").unlink()
    with pytest.raises(NotFound, match=r"test-audio\.npy is missing"):
        avmnist.open_split(copy, "test")
    (copy / "dataset.json").write_text("{")
    with pytest.raises(Corrupt, match=r"dataset.json is damaged"):
        avmnist.describe(copy)
    (copy / "dataset.json").write_text(json.dumps({"name": "coco", "format": 1}))
    with pytest.raises(Corrupt, match="describes coco"):
        avmnist.describe(copy)
    with pytest.raises(NotFound, match="holds no AV-MNIST data set"):
        avmnist.describe(tmp_path)


def test_a_full_disk_is_noticed_before_work_begins(
    raw: Path, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FailedPrecondition, match="needs 1 MB"):
        avmnist.build(raw, names, tmp_path / "av", avmnist.Parameters(**SMALL))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rank": 0}, "rank is 0, expected 1 to 784"),
        ({"snr_db": float("nan")}, "snr_db is nan"),
        ({"snr_db": 99.0}, "from -60 to 60"),
        ({"seed": -1}, "seed is -1"),
        ({"train_pairs": 60_001}, "1 to 60000"),
        ({"test_pairs": 0}, "1 to 10000"),
        ({"window_seconds": 9.0}, "0.1 to 5 seconds"),
        ({"test_noise": ("traffic",)}, "at least one and not all of 001 - Dog bark"),
        ({"test_noise": NOISE_CLASSES}, "at least one and not all"),
        ({"colour": "red"}, "no parameter 'colour'"),
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        avmnist.Parameters.from_dict(values)


def test_parameters_survive_json() -> None:
    parameters = avmnist.Parameters(seed=3, snr_db=-2.5, test_noise=("002 - Rain",))
    assert avmnist.Parameters.from_dict(json.loads(json.dumps(parameters.as_dict()))) == parameters
