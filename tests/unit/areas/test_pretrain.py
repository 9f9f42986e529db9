"""The training recipe end to end, on a data set that is too small to learn much from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encephalon.areas import load_network, packaged_weights
from encephalon.areas.evaluation import accuracies
from encephalon.areas.evaluation import main as evaluate
from encephalon.areas.pretrain.__main__ import main
from encephalon.areas.pretrain.folds import ASSOCIATION, SENSES, VALIDATION, open_folds
from encephalon.areas.weights import read
from encephalon.core.errors import InvalidInput
from encephalon.library import avmnist
from encephalon.library.avmnist import digests
from tests.unit.library.raw_folder import make_raw_folder

SMALL = {"train_pairs": 60, "test_pairs": 20, "window_seconds": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = make_raw_folder(tmp_path_factory.mktemp("raw"), takes=(0, 31, 37, 40))
    names = list(digests.scan(raw))
    return avmnist.build(raw, names, tmp_path_factory.mktemp("built") / "av", avmnist.Parameters(**SMALL))


def train(data: Path, out: Path, *networks: str, senses: tuple[str, str] = ("001", "001"), more: str = "") -> int:
    budget = ["--epochs", "2", "--pairs", "16", "--seed", "3"]
    learned_from = ["--vision", f"vision/{senses[0]}", "--hearing", f"hearing/{senses[1]}"]
    places = ["--data", str(data), "--out", str(out)]
    return main([*places, *learned_from, *budget, *more.split(), "--networks", *networks])


def test_folds_share_no_pair_and_no_recording(data: Path) -> None:
    folds, recordings = open_folds(data), avmnist.describe(data).recordings
    heard = []
    for places, takes in ((folds.senses, SENSES), (folds.association, ASSOCIATION), (folds.validation, VALIDATION)):
        names = {recordings[at] for at in folds.pairs.recordings[places]}
        assert {int(Path(name).stem.split("_")[2]) for name in names} <= set(takes)
        heard.append(names)
    assert len(set.union(*heard)) == sum(map(len, heard))
    assert sum(map(len, folds[1:])) == len(folds.pairs)


def test_the_same_seed_gives_the_same_weights_which_load_and_answer(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ("vision/001", "hearing/001", "association/001")
    assert train(data, tmp_path / "one", *networks) == 0
    assert "association/001: validation loss" in capsys.readouterr().out
    assert train(data, tmp_path / "two", *networks) == 0
    loaded = []
    for name in networks:
        area, code = name.split("/")
        path = tmp_path / "one" / f"{area}-{code}.safetensors"
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert read(path).architecture == name
        loaded.append(load_network(area, code, path))
    pairs = avmnist.open_split(data, "test")
    found = accuracies(loaded[0], loaded[1], loaded[2], pairs.images, pairs.audio, pairs.labels)
    assert found.keys() == {"image", "audio", "fused", "without image", "without audio"}
    assert all(0 <= share <= 1 for share in found.values())


def test_an_association_of_other_senses_is_stored_under_its_own_name_in_half_precision(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vision-003.safetensors").write_bytes(packaged_weights("vision", "003").read_bytes())
    (tmp_path / "hearing-001.safetensors").write_bytes(packaged_weights("hearing", "001").read_bytes())
    senses, more = ("003", "001"), "--half --name association-001-vision-003"
    assert train(data, tmp_path, "association/001", senses=senses, more=more) == 0
    path = tmp_path / "association-001-vision-003.safetensors"
    stored = read(path)
    assert stored.arguments == {"image_features": 3_136, "audio_features": 288}
    assert {tensor.dtype for tensor in stored.tensors.values()} == {torch.float16}
    answer = load_network("association", "001", path)({"image_features": np.ones((2, 3_136), np.float32)})
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert train(data, tmp_path, "vision/001", "hearing/001", more="--name both") == 2
    assert "--name both came for 2 networks" in capsys.readouterr().err


def test_the_shipped_networks_are_judged_in_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for which in ([], ["--validation"]):
        assert evaluate(["--data", str(data), *which]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if "│" in line and "0." in line]
        both = [[cell for cell in row if cell != "│"] for row in rows]
        assert {(row[0], row[1]) for row in both if len(row) > 4} >= {("002", "002")}
        assert {(row[0], row[1]) for row in both} >= {(code, code) for code in ("001", "002", "003", "004")}
    assert evaluate(["--validation"]) == 2
    assert "--validation came without --data" in capsys.readouterr().err


def test_a_sense_without_weights_and_a_missing_data_set_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path, "association/001") == 1
    assert "vision-001.safetensors cannot be read" in capsys.readouterr().err
    assert train(tmp_path, tmp_path, "vision/001") == 1
    assert "holds no AV-MNIST data set" in capsys.readouterr().err


def test_too_small_a_data_set_is_refused(tmp_path: Path) -> None:
    raw = make_raw_folder(tmp_path / "raw", takes=(0, 40))
    names = list(digests.scan(raw))
    built = avmnist.build(raw, names, tmp_path / "av", avmnist.Parameters(**SMALL))
    with pytest.raises(InvalidInput, match="too few to divide into three folds"):
        open_folds(built)


def test_one_sense_and_the_other_missing_differ_from_both() -> None:
    """The shipped association: a missing sense leaves an answer, and not the same one."""
    association = load_network("association", "001")
    image, audio = (np.abs(np.random.default_rng(seed).standard_normal((4, 1_152), np.float32)) for seed in (0, 1))
    answers = [
        association(inputs)["probabilities"]
        for inputs in (
            {"image_features": image, "audio_features": audio},
            {"image_features": image},
            {"audio_features": audio},
        )
    ]
    for answer in answers:
        np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])
