"""AV-MNIST from the real raw files: `mnist/`, `fsdd/recordings/` and `esc10/`."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.errors import Corrupt
from encephalon.library import avmnist
from encephalon.library.avmnist import digests, pictures
from encephalon.library.sample import load_sample
from tests.data import needs_raw_data, raw_data

pytestmark = needs_raw_data

# Of the unpacked IDX files, as published with the data set.
PUBLISHED = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture(scope="module")
def raw() -> Path:
    folder = raw_data()
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many test pairs as the packaged sample reaches into."""
    parameters = avmnist.Parameters(train_pairs=200, test_pairs=int(load_sample().places[-1]) + 1)
    return avmnist.get(raw, tmp_path_factory.mktemp("real") / "av", parameters)


def test_the_packaged_digests_are_those_of_the_real_files(raw: Path) -> None:
    packaged = digests.packaged()
    assert digests.scan(raw) == packaged
    counts = [sum(name.startswith(part) for name in packaged) for part in ("mnist/", "fsdd/recordings/", "esc10/")]
    assert counts == [4, 3_000, 400]
    for name, published in PUBLISHED.items():
        content = gzip.decompress((raw / "mnist" / name).read_bytes())
        assert hashlib.md5(content).hexdigest() == published  # noqa: S324


def test_labels_keep_the_order_of_mnist(built: Path, raw: Path) -> None:
    for split, file in (("train", "train-labels-idx1-ubyte.gz"), ("test", "t10k-labels-idx1-ubyte.gz")):
        labels = avmnist.open_split(built, split).labels  # type: ignore[arg-type]
        np.testing.assert_array_equal(labels, pictures.read_idx(raw / "mnist" / file)[: len(labels)])


def test_three_components_remove_three_quarters_of_the_energy(built: Path) -> None:
    assert avmnist.describe(built).statistics["kept_energy"] == pytest.approx(0.2297, abs=1e-4)
    flat = avmnist.open_split(built, "train").images.reshape(200, -1).astype(float)
    energy = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2
    # All but what clipping to 0-255 and rounding add lies in three directions.
    assert energy[:3].sum() / energy.sum() > 0.95


def test_the_packaged_sample_is_the_beginning_of_the_test_split(built: Path) -> None:
    sample, pairs = load_sample(), avmnist.open_split(built, "test")
    np.testing.assert_array_equal(sample.labels, pairs.labels[sample.places])
    # Decoders and linear algebra of other versions may round otherwise.
    assert np.abs(sample.images.astype(int) - pairs.images[sample.places]).max() <= 1
    assert np.abs(sample.audio.astype(int) - pairs.audio[sample.places]).max() <= 2


def test_no_recording_or_noise_class_is_in_both_splits(built: Path) -> None:
    description = avmnist.describe(built)
    train, test = (avmnist.open_split(built, split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert not set(train.recordings.tolist()) & set(test.recordings.tolist())
    takes = {int(Path(description.recordings[at]).stem.split("_")[2]) for at in test.recordings}
    assert takes <= set(range(40, 50))
    classes = [{description.noises[at].split("/")[1] for at in pairs.noises} for pairs in (train, test)]
    assert not classes[0] & classes[1]
    assert len(classes[0]) == 7
    assert len(classes[1]) == 3


def test_a_damaged_raw_file_is_named(raw: Path, tmp_path: Path) -> None:
    for part in ("mnist", "fsdd", "esc10"):
        (tmp_path / part).symlink_to(raw / part)
    (tmp_path / "fsdd").unlink()
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    for path in (raw / "fsdd" / "recordings").iterdir():
        (tmp_path / "fsdd" / "recordings" / path.name).symlink_to(path)
    victim = tmp_path / "fsdd" / "recordings" / "7_jackson_32.wav"
    data = bytearray(victim.read_bytes())
    victim.unlink()
    data[1_000] ^= 1
    victim.write_bytes(data)
    with pytest.raises(Corrupt, match=r"7_jackson_32\.wav is damaged"):
        avmnist.get(tmp_path, tmp_path / "av")
