"""The shipped weights on the shipped sample: what the README promises."""

from __future__ import annotations

from encephalon.areas import load_network
from encephalon.areas.evaluation import accuracies
from encephalon.library.builtins import WEIGHTS
from encephalon.library.sample import load_sample


def test_fused_beats_the_better_single_sense_and_either_may_be_missing() -> None:
    sample = load_sample()
    networks = [
        load_network(area, code) for area, code in (("vision", "002"), ("hearing", "002"), ("association", "001"))
    ]
    found = accuracies(networks[0], networks[1], networks[2], sample.images, sample.audio, sample.labels)
    assert found["fused"] >= max(found["image"], found["audio"]) + 0.05
    assert found["without image"] >= found["audio"] - 0.05
    assert found["without audio"] >= found["image"] - 0.05


def test_the_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 6e6
