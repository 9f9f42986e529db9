"""From a brain and a data set, as they are named, to the settings of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput
from encephalon.library.blocking import open_library_blocking
from encephalon.library.builtins import example
from encephalon.library.datasets import add_arrays
from encephalon.library.library import Library
from encephalon.library.store.cache import Cache
from encephalon.local.training.asked import Asked, asked, resumed
from encephalon.local.training.kept import Runs
from encephalon.state import open_key_value, open_objects
from encephalon.state.embedded import key_value_url, objects_url
from encephalon.training.runs import keys_of
from tests.training.brains import SMALL


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library with what every library has."""
    folder = tmp_path_factory.mktemp("library")
    with open_library_blocking(key_value_url(folder), objects_url(folder), cache_dir=folder / "cache"):
        return folder


@pytest.fixture
async def library(seeded: Path) -> AsyncIterator[Library]:
    async with open_key_value(key_value_url(seeded)) as store, open_objects(objects_url(seeded)) as objects:
        yield Library(store, objects, cache=Cache(seeded / "cache"))


async def wanted(library: Library, brain: str | Path = "digits", data: str = "avmnist-sample", **values: Any) -> Asked:
    return await asked(library, Runs(library.key_value, "default"), brain, data, values)


async def test_names_become_versions_and_words_become_those_of_torch(library: Library) -> None:
    found = await wanted(library, optimizer="adamw", schedule="cosine", epochs=2, batch_size=50)
    settings = found.settings
    assert (settings.brain, settings.data) == ("brain:digits@1", "data_set:avmnist-sample@1")
    assert settings.run == "digits-1"
    assert settings.targets == {"probabilities": 1.0}
    assert (settings.optimizer, settings.schedule) == ("AdamW", "CosineAnnealingLR")
    assert settings.schedule_arguments["T_max"] == 12  # 270 samples, 6 updates an epoch
    assert found.regions == ("visual", "auditory", "association")


async def test_one_cycle_is_as_long_as_the_run_and_as_high_as_its_rate(library: Library) -> None:
    asked_for = {"schedule": "one-cycle", "optimizer_arguments": {"lr": 0.01}, "epochs": 2, "batch_size": 50}
    settings = (await wanted(library, **asked_for)).settings
    assert (settings.schedule, settings.schedule_arguments) == ("OneCycleLR", {"max_lr": 0.01, "total_steps": 12})
    told = {"max_lr": 0.5, "epochs": 3, "steps_per_epoch": 4}
    assert (await wanted(library, **asked_for, schedule_arguments=told)).settings.schedule_arguments == told


async def test_a_manifest_is_added_once_and_not_again(library: Library, tmp_path: Path) -> None:
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(example("digits").read_text().replace("brain: digits", "brain: mine"))
    for _ in range(2):
        assert (await wanted(library, manifest)).settings.brain == "brain:mine@1"
    assert (await wanted(library, str(manifest))).settings.run == "mine-1"
    manifest.write_text(manifest.read_text().replace("max_batch: 64", "max_batch: 32"))
    assert (await wanted(library, manifest)).settings.brain == "brain:mine@2"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"brain": "digit"}, "no brain 'digit' in the library; did you mean 'digits'.; a manifest is a file"),
        ({"data": "avmnist-samle"}, "no data_set 'avmnist-samle' in the library; did you mean 'avmnist-sample'"),
        ({"learn": ("visul",)}, "no region of digits to learn 'visul'; did you mean 'visual'"),
        ({"freeze": ("x",)}, "no region of digits to freeze 'x'; there are visual, auditory, association"),
        ({"inputs": {"picture": "image"}}, "no input of digits 'picture'"),
        ({"inputs": {"image": "imag"}}, "no modality of avmnist-sample 'imag'; did you mean 'image'"),
        ({"targets": {"probability": 1.0}}, "no output of digits 'probability'; did you mean 'probabilities'"),
        ({"split": "tset"}, "no split of avmnist-sample 'tset'; did you mean 'test'"),
        ({"optimizer": "adamx"}, "no optimizer 'adamx'; did you mean Adam"),
        ({"optimizer": "LBFGS"}, "LBFGS cannot run on a parameter server"),
        ({"batch_size": 1, "workers": 2}, "batch_size is 1 for 2 workers"),
        ({"mode": "fast"}, "mode is 'fast'"),
        ({"run": "a/b"}, "run is 'a/b': a name begins with a letter or digit"),
        ({"schedule": "cosin"}, "no schedule 'cosin'; did you mean CosineAnnealingLR"),
        ({"schedule": "step"}, "schedule StepLR needs step_size"),
        ({"optimizer_arguments": {"lr": float("nan")}}, "AdamW has lr nan; give a finite number"),
        ({"optimizer_arguments": {"lr": -1.0}}, "AdamW has lr -1.0; a learning rate is"),
        ({"optimizer_arguments": {"lr": "much"}}, "AdamW has lr 'much'"),
        ({"optimizer_arguments": {"betas": [0.9, float("inf")]}}, "AdamW has betas"),
        (
            {"optimizer": "sgd", "optimizer_arguments": {"momentun": 0.9}},
            "SGD does not take 'momentun'; did you mean mom",
        ),
        ({"targets": {"probabilities": float("nan")}}, "targets.probabilities is nan"),
        ({"targets": {"probabilities": -1.0}}, "the weights of targets are .* none may be negative"),
        ({"clip_norm": float("inf")}, "clip_norm is inf"),
        ({"validation": "1.5"}, "validation is 1.5; a share"),
        ({"validation": "nan"}, "validation is nan; a share"),
        ({"freeze": ("visual", "auditory", "association")}, "every region of brain 'digits' is frozen"),
    ],
)
async def test_what_cannot_be_is_said_before_anything_starts(
    library: Library, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EncephalonError, match=sentence):
        await wanted(library, **values)


async def test_what_feeds_nothing_is_said(library: Library, tmp_path: Path) -> None:
    manifest = tmp_path / "dense.yaml"
    manifest.write_text(SMALL.manifest)
    with pytest.raises(
        InvalidInput, match=r"nothing in data set 'avmnist-sample' is called like input 'x' .*--input x"
    ):
        await wanted(library, manifest)
    assert (await wanted(library, manifest, inputs={"x": "image"})).settings.inputs == {"x": "image"}
    x = np.zeros((4, 16), np.float32)
    await add_arrays(library, "twice", {"x": x, "a": np.arange(4), "b": np.arange(4)}, {"train": slice(0, 4)})
    with pytest.raises(InvalidInput, match="what is right must be one modality of type label"):
        await wanted(library, manifest, "twice")


async def test_a_run_goes_on_with_other_numbers_and_nothing_else(library: Library) -> None:
    runs = Runs(library.key_value, "default")
    for name, plan in (("free", "dynamic"), ("strict", "fixed")):
        await runs.begin((await wanted(library, run=name, plan=plan, workers=2)).settings)
    found = await resumed(library, runs, "free", {"workers": 3, "shards": 2, "optimizer": "adamw"}, brain="digits")
    assert (found.settings.workers, found.settings.shards, found.processes) == (3, 2, 3)
    assert found.resume
    strict = await resumed(library, runs, "strict", {"workers": 3})
    assert (strict.settings.workers, strict.processes) == (2, 3)
    for values, more, sentence in (
        ({"batch_size": 7}, {}, "began with batch_size 96, and cannot go on with 7"),
        ({}, {"brain": "other"}, "is of brain:digits@1 and not of other"),
        ({}, {"data": "other"}, "is of data_set:avmnist-sample@1 and not of other"),
    ):
        with pytest.raises(EncephalonError, match=sentence):
            await resumed(library, runs, "free", values, **more)
    ended = RunState(run="free", state=RunState.STATE_SUCCEEDED)
    await library.key_value.put(keys_of("default", "free")[1], ended.SerializeToString())
    with pytest.raises(FailedPrecondition, match="run 'free' has succeeded; there is nothing to go on with"):
        await resumed(library, runs, "free", {})
