"""Builds the data set: pair i of a split is picture i of MNIST, a drawn recording of the same digit, and a drawn
noise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from encephalon.core.errors import AlreadyExists, FailedPrecondition, NotFound
from encephalon.library.avmnist import attribution, mixture, pictures, sounds
from encephalon.library.avmnist.dataset import DESCRIPTION, FORMAT, describe, part_path
from encephalon.library.avmnist.parameters import NOISE_CLASSES, TEST_RECORDINGS, Parameters
from encephalon.library.avmnist.progress import Progress, silent

__all__ = ["build"]

SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
EVERY = 250
"""Pairs between two calls of the progress."""

Facts = dict[str, Any]


def build(
    raw: Path, names: Sequence[str], destination: Path, parameters: Parameters, progress: Progress = silent
) -> Path:
    """Builds `destination` from the raw files `names` under `raw`; all of it appears at once or nothing does.

    The same raw files and parameters give the same bytes; fewer pairs give a beginning of more pairs. A destination
    that holds the same data set already is left as it is. Raises `AlreadyExists` for any other full destination,
    `NotFound` or `Corrupt` naming a bad raw file, `FailedPrecondition` when the disk is too small or scipy is
    missing.
    """
    destination = destination.absolute()
    if _is_built(destination, parameters):
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    _check_space(destination.parent, parameters)
    with _appearing(destination) as folder:
        _fill(folder, raw, names, parameters, progress)
    return destination


def _fill(folder: Path, raw: Path, names: Sequence[str], parameters: Parameters, progress: Progress) -> None:
    images = {split: pictures.read_idx(raw / "mnist" / files[0]) for split, files in SPLITS.items()}
    progress("fitting principal components", 0, None)
    components = pictures.fit(images["train"], parameters.rank)
    speech = sounds.recordings(names)
    noise = [clip for clip in sounds.noises(names) if clip.category in NOISE_CLASSES]
    clips = _read_all(raw, [clip.name for clip in noise], progress)
    spoken = _read_all(raw, [recording.name for recording in speech], progress)
    facts: Facts = {}
    for stream, (split, files) in enumerate(SPLITS.items()):
        count = parameters.train_pairs if split == "train" else parameters.test_pairs
        labels = pictures.read_idx(raw / "mnist" / files[1])[:count]
        np.save(part_path(folder, split, "labels"), labels.astype(np.int64))
        np.save(part_path(folder, split, "images"), components.reconstruct(images[split][:count]))
        random = np.random.default_rng([parameters.seed, stream])
        usable = _usable(split, noise, parameters)
        choices = [_spoken_by(split, speech, digit) for digit in range(10)]
        facts[split] = _mix_all(folder, split, labels, choices, usable, (spoken, clips), parameters, random, progress)
    _describe(folder, parameters, components.kept_energy, facts, speech, noise)


def _mix_all(
    folder: Path,
    split: str,
    labels: NDArray[np.uint8],
    choices: Sequence[Sequence[int]],
    usable: Sequence[int],
    samples: tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
    parameters: Parameters,
    random: np.random.Generator,
    progress: Progress,
) -> Facts:
    spoken, clips = samples
    count = len(labels)
    audio = np.lib.format.open_memmap(
        part_path(folder, split, "audio"), mode="w+", dtype=np.int16, shape=(count, parameters.window)
    )
    drawn = np.empty((2, count), np.int16)
    for pair, label in enumerate(labels):
        if pair % EVERY == 0:
            progress(f"mixing {split}", pair, count)
        recording = choices[label][int(random.integers(len(choices[label])))]
        clip = usable[int(random.integers(len(usable)))]
        noise = mixture.excerpt(clips[clip], parameters.window, random)
        audio[pair] = mixture.mix(spoken[recording], noise, parameters.snr_db, random)
        drawn[:, pair] = recording, clip
    audio.flush()
    np.save(part_path(folder, split, "recordings"), drawn[0])
    np.save(part_path(folder, split, "noises"), drawn[1])
    progress(f"mixing {split}", count, count)
    return {"pairs": count, "per_label": np.bincount(labels, minlength=10).tolist()}


def _spoken_by(split: str, speech: Sequence[sounds.Recording], digit: int) -> list[int]:
    """Places in `speech` of the recordings of `digit` that belong to the split."""
    is_test = split == "test"
    found = [at for at, one in enumerate(speech) if one.digit == digit and (one.take in TEST_RECORDINGS) == is_test]
    if not found:
        raise NotFound(f"fsdd/recordings holds no recording of the digit {digit} for the {split} split", digit=digit)
    return found


def _usable(split: str, noise: Sequence[sounds.Noise], parameters: Parameters) -> list[int]:
    """Places in `noise` of the clips whose class belongs to the split."""
    categories = parameters.test_noise if split == "test" else parameters.train_noise
    found = [at for at, clip in enumerate(noise) if clip.category in categories]
    if not found:
        raise NotFound(f"esc10 holds no clip of {', '.join(categories)} for the {split} split")
    return found


def _read_all(raw: Path, names: Sequence[str], progress: Progress) -> list[NDArray[np.float32]]:
    result = []
    for done, name in enumerate(names):
        progress("reading sounds", done, len(names))
        result.append(mixture.trimmed(sounds.read(raw / name)))
    return result


def _describe(
    folder: Path,
    parameters: Parameters,
    kept_energy: float,
    facts: Facts,
    speech: Sequence[sounds.Recording],
    noise: Sequence[sounds.Noise],
) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.npy"))}
    description = {
        "name": "av-mnist",
        "format": FORMAT,
        "parameters": parameters.as_dict(),
        # Four digits say enough, and do not depend on the processor's linear algebra.
        "statistics": {"kept_energy": round(kept_energy, 4), **facts},
        "attribution": attribution.SOURCES,
        "files": files,
        "recordings": [one.name for one in speech],
        "noises": [one.name for one in noise],
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def _is_built(destination: Path, parameters: Parameters) -> bool:
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    if (destination / DESCRIPTION).is_file() and describe(destination).parameters == parameters:
        return True
    raise AlreadyExists(
        f"{destination} exists and is not this data set; name another folder, or remove it first", path=destination
    )


def _check_space(folder: Path, parameters: Parameters) -> None:
    needed = (parameters.train_pairs + parameters.test_pairs) * (parameters.window * 2 + 28 * 28 + 12)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FailedPrecondition(
            f"the data set needs {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free", path=folder
        )


@contextmanager
def _appearing(destination: Path) -> Iterator[Path]:
    """A hidden folder beside `destination` that takes its name when the block ends well, and goes away when it does
    not."""
    prefix = f".{destination.name}.building-"
    for stale in destination.parent.glob(f"{prefix}*"):
        # What a killed build left behind; a build that still runs keeps its folder.
        if not psutil.pid_exists(int(stale.name.removeprefix(prefix))):
            shutil.rmtree(stale)
    folder = destination.parent / f"{prefix}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
