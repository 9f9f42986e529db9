"""`python -m encephalon.areas.evaluation [--data FOLDER]`: how often the digits networks are right, with both senses
and with one.

Without `--data` on the packaged sample, with it on the test split of that data set. It runs the networks as a region
does.
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
from encephalon.core.errors import EncephalonError
from encephalon.library import avmnist
from encephalon.library.builtins import WEIGHTS
from encephalon.library.sample import load_sample

__all__ = ["accuracies"]

BATCH = 100

ASSOCIATION = ("association", "001")
FUSED = "002"
"""The senses whose features the packaged association learned from; those of others mean other things."""


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
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of AREA-CODE.safetensors (default: the packaged ones)"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        Console().print(_table(options.weights, *_pairs(options.data)))
    except EncephalonError as error:
        Console(stderr=True).print(error.message, style="red", soft_wrap=True)
        return 1
    return 0


def _pairs(data: Path | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    pairs = load_sample() if data is None else avmnist.open_split(data, "test")
    return pairs.images, pairs.audio, pairs.labels


def _table(folder: Path, *pairs: NDArray[Any]) -> Table:
    table = Table("vision", "hearing", *(names := ("image", "audio", "fused", "without image", "without audio")))
    for code in ("001", "002", "003", "004"):
        files = {area: folder / f"{area}-{code}.safetensors" for area in ("vision", "hearing")}
        if all(file.is_file() for file in files.values()):
            vision, hearing = (load_network(area, code, file) for area, file in files.items())
            association = (
                load_network(*ASSOCIATION, folder / f"{'-'.join(ASSOCIATION)}.safetensors") if code == FUSED else None
            )
            found = accuracies(vision, hearing, association, *pairs)
            table.add_row(code, code, *(f"{found[name]:.4f}" if name in found else "" for name in names))
    return table


def _right(answer: Arrays, labels: NDArray[Any]) -> int:
    return int((np.argmax(answer["probabilities"], axis=1) == labels).sum())


if __name__ == "__main__":
    sys.exit(main())
