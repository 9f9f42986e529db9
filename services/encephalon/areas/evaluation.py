"""`python -m encephalon.areas.evaluation [--data FOLDER [--validation]]`: how often the digits networks are right, with
both senses and with one.

Without `--data` on the packaged sample, with it on the test split of that data set, or on the fold of its training
split by which epochs are chosen. It runs the networks as a region does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from encephalon.areas.catalog import load_network
from encephalon.areas.network import Arrays, Network
from encephalon.areas.pretrain.folds import open_folds
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.library import avmnist
from encephalon.library.builtins import WEIGHTS
from encephalon.library.sample import load_sample

__all__ = ["accuracies"]

BATCH = 100

CODES = ("001", "002", "003", "004")
ASSOCIATIONS = {
    ("002", "002"): "association-001",
    **{(code, "002"): f"association-001-vision-{code}" for code in ("001", "003", "004")},
}
"""File of the association that learned from the features of these codes of vision and hearing; the features of others
mean other things to it."""


def accuracies(
    vision: Network,
    hearing: Network,
    association: Network | None,
    images: NDArray[Any],
    audio: NDArray[Any],
    labels: NDArray[Any],
) -> dict[str, float]:
    """Shares from 0 to 1 under `image`, `audio` and, with an association, `fused`, `without image`, `without audio`."""
    right: dict[str, int] = {}
    for start in range(0, len(labels), BATCH):
        rows = slice(start, start + BATCH)
        seen, heard = vision({"image": images[rows]}), hearing({"audio": audio[rows]})
        answers = {"image": seen, "audio": heard}
        if association is not None:
            image, sound = {"image_features": seen["features"]}, {"audio_features": heard["features"]}
            fused = {"fused": {**image, **sound}, "without image": sound, "without audio": image}
            answers |= {name: association(inputs) for name, inputs in fused.items()}
        for name, answer in answers.items():
            right[name] = right.get(name, 0) + _right(answer, labels[rows])
    return {name: count / len(labels) for name, count in right.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m encephalon.areas.evaluation", description=__doc__)
    parser.add_argument("--data", type=Path, help="an AV-MNIST data set; default: the packaged sample")
    parser.add_argument("--validation", action="store_true", help="the validation fold of --data, not its test split")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of AREA-CODE.safetensors (default: the packaged ones)"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        Console().print(_table(options.weights, *_pairs(options.data, validation=options.validation)))
    except EncephalonError as error:
        Console(stderr=True).print(error.message, style="red", soft_wrap=True)
        return 2 if isinstance(error, InvalidInput) else 1
    return 0


def _pairs(data: Path | None, *, validation: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    if not validation:
        pairs = load_sample() if data is None else avmnist.open_split(data, "test")
        return pairs.images, pairs.audio, pairs.labels
    if data is None:
        raise InvalidInput("--validation came without --data; name the data set whose fold is meant")
    folds = open_folds(data)
    places = folds.validation
    return folds.pairs.images[places], folds.pairs.audio[places], folds.pairs.labels[places]


def _table(folder: Path, *pairs: NDArray[Any]) -> Table:
    table = Table("vision", "hearing", *(names := ("image", "audio", "fused", "without image", "without audio")))
    for seen, heard in (*((code, code) for code in CODES), *((code, "002") for code in CODES if code != "002")):
        files = folder / f"vision-{seen}.safetensors", folder / f"hearing-{heard}.safetensors"
        if all(file.is_file() for file in files):
            senses = load_network("vision", seen, files[0]), load_network("hearing", heard, files[1])
            found = accuracies(*senses, _association(folder, seen, heard), *pairs)
            table.add_row(seen, heard, *(f"{found[name]:.4f}" if name in found else "" for name in names))
    return table


def _association(folder: Path, seen: str, heard: str) -> Network | None:
    if (seen, heard) not in ASSOCIATIONS:
        return None
    file = folder / f"{ASSOCIATIONS[seen, heard]}.safetensors"
    return load_network("association", "001", file) if file.is_file() else None


def _right(answer: Arrays, labels: NDArray[Any]) -> int:
    return int((np.argmax(answer["probabilities"], axis=1) == labels).sum())


if __name__ == "__main__":
    sys.exit(main())
