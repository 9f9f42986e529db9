"""AV-MNIST, from scratch: how good a brain gets with one process, and with three workers in each of the three modes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
from safetensors.torch import save_file

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.areas.association import LateFusion
from encephalon.core.errors import NotFound
from encephalon.library.avmnist import describe, get, open_split
from encephalon.library.brains.pinning import contract_message
from encephalon.library.datasets import add_arrays, avmnist_modalities
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.local.training.given import brain_record
from encephalon.training.runs import RunSettings
from tests.bench.serving.environments import CACHE
from tests.bench.training.report import Bar, Part, Table
from tests.data import raw_data
from tests.training.runs import Place

__all__ = ["measure"]

MANIFEST: Final = """
brain: senses
inputs:
  image: {datatype: UINT8, shape: [-1, -1, -1], optional: true}
  audio: {datatype: INT16, shape: [-1, -1], optional: true}
regions:
  visual: {network: vision/001}
  auditory: {network: hearing/001}
  association: {network: association/001, weights: "library:narrow-fusion"}
pathways:
  - {from: image, to: visual.image}
  - {from: audio, to: auditory.audio}
  - {from: visual.features, to: association.image_features, optional: true}
  - {from: auditory.features, to: association.audio_features, optional: true}
outputs: {probabilities: association.probabilities}
"""
PAIRS, QUICK_PAIRS = 16_000, 2_000
BATCH, EPOCHS = 96, 3


@dataclass(frozen=True, slots=True)
class Mode:
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)


ALONE = Mode("one process", {"workers": 1})
MODES = (
    ALONE,
    Mode("sync, 3 workers", {"workers": 3}),
    Mode("ssp, 3 workers", {"workers": 3, "mode": "ssp", "staleness": 3}),
    Mode("async, 3 workers", {"workers": 3, "mode": "async"}),
)


async def measure(rounds: int, quick: bool, data: Path | None, tell: Callable[[str], None]) -> Part:
    folder = data or await built(tell)
    pairs = QUICK_PAIRS if quick else PAIRS
    found: dict[str, list[float]] = {mode.title: [] for mode in MODES}
    seconds: dict[str, list[float]] = {mode.title: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="enc-bench-") as name:
        place = Place.of(Path(name))
        brain, data_set, tests = await added(place, folder, pairs)
        for seed in range(1 if quick else rounds):
            for mode in MODES:
                tell(f"seed {seed}: {mode.title}")
                settings = settings_of(mode, seed, brain, data_set, pairs)
                async with place.running(settings) as run:
                    state = await run.succeeded(within=600)
                found[mode.title].append(100 * state.test.accuracy["probabilities"])
                seconds[mode.title].append(state.seconds)
    rows = [
        [title, " / ".join(f"{each:.2f}" for each in values), f"{mean(seconds[title]):.0f}"]
        for title, values in found.items()
    ]
    part = Part("Accuracy", [Table("AV-MNIST", ("Trained by", "Test accuracy, %", "Seconds"), rows)], _bars(found))
    part.notes.append(
        f"LeNet3 for pictures, LeNet3 for sounds and late fusion, from scratch, {pairs:,} training pairs, {EPOCHS} "
        f"epochs, batches of {BATCH}, AdamW; judged on {tests:,} test pairs."
    )
    part.measured = {"accuracy": found, "seconds": seconds}
    return part


def settings_of(mode: Mode, seed: int, brain: str, data_set: str, pairs: int) -> RunSettings:
    """An update of ssp and async is the share of one worker, so there are three times as many."""
    updates = EPOCHS * -(-pairs // BATCH) * (3 if "mode" in mode.settings else 1)
    name = mode.title.replace(", ", "-").replace(" ", "-")
    return RunSettings.checked(
        run=f"{name}-{seed}",
        brain=brain,
        data=data_set,
        from_scratch=True,
        batch_size=BATCH,
        epochs=EPOCHS,
        validation="",
        seed=seed,
        # Towards the end the steps get small, so that the last of them does not decide.
        schedule="LinearLR",
        schedule_arguments={"start_factor": 1.0, "end_factor": 0.02, "total_iters": updates},
        checkpoint_steps=100_000,
        **mode.settings,
    )


async def added(place: Place, folder: Path, pairs: int) -> tuple[str, str, int]:
    """Brain and data set, with the first pairs of the training split and all of the test split."""
    train, test = open_split(folder, "train"), open_split(folder, "test")
    columns = {
        "image": np.concatenate([train.images[:pairs], test.images]),
        "audio": np.concatenate([train.audio[:pairs], test.audio]),
        "label": np.concatenate([train.labels[:pairs], test.labels]),
    }
    total = pairs + len(test)
    (place.options.state_dir / "senses.yaml").write_text(MANIFEST)
    async with place.library(seed=True) as library:
        await add_fusion(library, place.options.state_dir)
        splits = {"train": slice(0, pairs), "test": slice(pairs, total)}
        record = await add_arrays(library, "avmnist", columns, splits, avmnist_modalities(columns["audio"].shape[1]))
        brain = await brain_record(library, place.options.state_dir / "senses.yaml")
    return str(Reference.of(brain.id)), str(Reference.of(record.id)), total - pairs


async def add_fusion(library: Library, folder: Path) -> None:
    """A fusion as narrow as LeNet3; the one that ships is for LeNet5. Its weights are not used."""
    arguments = {"image_features": 288, "audio_features": 288}
    module = LateFusion(**arguments)
    save_file(module.state_dict(), folder / "fusion.safetensors")
    async with library.writing("add narrow-fusion") as writer:
        weights = await writer.put_file(folder / "fusion.safetensors")
        body = pb.Network(
            area="association",
            code="001",
            architecture="Late fusion",
            arguments=json.dumps(arguments),
            format="safetensors",
            weights=weights,
            contract=contract_message(module.contract),
        )
        await writer.commit(pb.Record(id=pb.Reference(kind=pb.KIND_NETWORK, name="narrow-fusion"), network=body))


async def built(tell: Callable[[str], None]) -> Path:
    """The whole set, built once and kept beside the environments of the rivals."""
    folder = CACHE / "avmnist"
    try:
        describe(folder)
    except NotFound:
        raw = raw_data()
        tell("building AV-MNIST" if raw else "downloading and building AV-MNIST (minutes, once)")
        await asyncio.to_thread(get, raw, folder)
    return folder


def _bars(found: Mapping[str, Sequence[float]]) -> list[Bar]:
    alone = mean(found[ALONE.title])
    return [
        Bar(f"{mode.title}: points below one process", "<=", 0.5, alone - mean(found[mode.title])) for mode in MODES[1:]
    ]
