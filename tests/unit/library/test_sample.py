from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from encephalon.library.avmnist import Parameters
from encephalon.library.sample import load_sample
from encephalon.library.sample.pairs import DATA, Sample, save_sample


def test_three_hundred_pairs_thirty_of_each_digit() -> None:
    sample = load_sample()
    assert len(sample) == 300
    assert (sample.images.shape, sample.images.dtype) == ((300, 28, 28), np.uint8)
    assert (sample.audio.shape, sample.audio.dtype) == ((300, 8_000), np.int16)
    assert np.bincount(sample.labels).tolist() == [30] * 10
    assert (np.diff(sample.places) > 0).all()


def test_it_is_small_and_every_noise_has_its_credit() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 4e6
    facts = json.loads((DATA / "pairs.json").read_text())
    assert Parameters.from_dict(facts["parameters"]) == Parameters()
    attribution = (DATA / "ATTRIBUTION.md").read_text()
    assert {"CC BY-SA 3.0", "CC BY-SA 4.0", "CC BY 3.0"} <= set(re.findall(r"CC BY(?:-SA)? \d\.\d", attribution))
    for noise in set(facts["noises"]):
        assert re.search(rf"^- {re.escape(noise)}: clip derived from .+ by .+$", attribution, re.MULTILINE)


def test_every_pair_is_of_the_test_split() -> None:
    facts = json.loads((DATA / "pairs.json").read_text())
    assert all(int(Path(name).stem.split("_")[2]) >= 40 for name in facts["recordings"])
    assert [int(Path(name).stem.split("_")[0]) for name in facts["recordings"]] == facts["labels"]
    assert {name.split("/")[1] for name in facts["noises"]} <= set(Parameters().test_noise)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sample = Sample(
        random.integers(0, 256, (23, 28, 28), np.uint8),
        random.integers(-32_768, 32_768, (23, 500)).astype(np.int16),
        random.integers(0, 10, 23),
        np.arange(23),
    )
    save_sample(tmp_path, sample, {})
    loaded = load_sample(tmp_path)
    for name in ("images", "audio", "labels", "places"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(sample, name))
