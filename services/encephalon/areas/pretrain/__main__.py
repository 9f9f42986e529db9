"""`python -m encephalon.areas.pretrain --data FOLDER --out FOLDER`: trains networks and writes their weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from encephalon.areas import load_network
from encephalon.areas.pretrain.folds import Folds, open_folds
from encephalon.areas.pretrain.fusion import Senses, train_association
from encephalon.areas.pretrain.senses import Budget, Score, train_sense
from encephalon.areas.sense import Sense
from encephalon.areas.torch_network import AreaModule, TorchNetwork
from encephalon.areas.weights import dumps
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.library.areas import find_network

VERSION = "1"
NETWORKS = (
    *(f"{area}/{code}" for area in ("vision", "hearing") for code in ("001", "002", "003", "004")),
    "association/001",
)

ASSOCIATION_EPOCHS = 12
"""On frozen features a matter of seconds; the validation loss rises again after the first few."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    console = Console()
    try:
        with Progress(console=console) as bars:
            _run(options, console, bars)
    except EncephalonError as error:
        Console(stderr=True).print(error.message, style="red", soft_wrap=True)
        return 2 if isinstance(error, InvalidInput) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m encephalon.areas.pretrain", description="Trains the networks of the digits brain."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="an AV-MNIST data set, as `encephalon data get avmnist` builds it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for AREA-CODE.safetensors")
    parser.add_argument("--name", help="of the file in place of AREA-CODE, when a single network is trained")
    parser.add_argument("--half", action="store_true", help="store half precision; a network computes in float32")
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, choices=NETWORKS, metavar="AREA/CODE", help="default: all"
    )
    for area in ("vision", "hearing"):
        parser.add_argument(
            f"--{area}",
            default=f"{area}/002",
            choices=[name for name in NETWORKS if name.startswith(area)],
            metavar="AREA/CODE",
            help="whose features the association learns from, with its weights in --out (default %(default)s)",
        )
    parser.add_argument("--epochs", type=int, default=10, help="of each sense (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=12_000, help="in one epoch (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; other numbers give other roundings (default %(default)s)"
    )
    return parser


def _run(options: argparse.Namespace, console: Console, bars: Progress) -> None:
    if options.name and len(options.networks) > 1:
        raise InvalidInput(f"--name {options.name} came for {len(options.networks)} networks; give --networks one")
    torch.set_num_threads(options.threads)
    folds = open_folds(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        area, code = name.split("/")
        find_network(area, code)
        if area == "association":
            arguments, module, score = _associate(options, folds, bars)
        else:
            budget = Budget(options.epochs, options.pairs)
            arguments = {}
            module, score = train_sense(area, code, folds, budget, options.seed, _told(bars, name, options.epochs))
        data = dumps(module, name, arguments, VERSION, half=options.half)
        _write(options.out / f"{options.name or f'{area}-{code}'}.safetensors", data)
        console.print(f"{name}: validation loss {score.loss:.3f}, accuracy {score.accuracy:.1%}")


def _associate(
    options: argparse.Namespace, folds: Folds, bars: Progress
) -> tuple[Mapping[str, Any], AreaModule, Score]:
    senses = Senses(_sense(options.out, options.vision), _sense(options.out, options.hearing))
    told = _told(bars, "association/001", ASSOCIATION_EPOCHS)
    module, score = train_association(senses, folds, ASSOCIATION_EPOCHS, options.seed, told)
    return {"image_features": senses.vision.features, "audio_features": senses.hearing.features}, module, score


def _sense(folder: Path, name: str) -> Sense:
    area, code = name.split("/")
    network = load_network(area, code, folder / f"{area}-{code}.safetensors")
    if not isinstance(network, TorchNetwork) or not isinstance(network.module, Sense):
        raise InvalidInput(f"{name} is no sense whose features an association can learn from")
    return network.module


def _told(bars: Progress, name: str, epochs: int) -> partial[None]:
    return partial(_tell, bars, bars.add_task(name, total=epochs), name)


def _tell(bars: Progress, task: Any, name: str, epoch: int, score: Score) -> None:
    bars.update(task, completed=epoch + 1, description=f"{name} loss {score.loss:.3f} accuracy {score.accuracy:.1%}")
    if not bars.console.is_terminal:
        bars.console.print(f"{name} epoch {epoch + 1}: loss {score.loss:.4f}, accuracy {score.accuracy:.4f}")


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
