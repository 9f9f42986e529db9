"""Ranges of an epoch, what is held out, modality dropout, and errors that name what does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.learning.dropping import drop
from encephalon.learning.routing import Routing
from encephalon.learning.samples import Samples, open_samples, reading_samples
from encephalon.library.brains import parse_manifest
from encephalon.library.datasets import add_arrays
from encephalon.library.library import Library
from encephalon.library.open import open_library
from tests.unit.learning.brains import FORK, settings_of
from tests.unit.library.data_sets import opened, stores, tiny_shards

COUNT = 101
ROUTING = Routing(parse_manifest(FORK), {"class": 1.0})


@pytest.fixture
async def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    """With the data set "points": 101 samples in 5 shards, whose first number is that of their row."""
    tiny_shards(monkeypatch, 24)
    rows = np.arange(COUNT, dtype=np.float32)
    columns = {
        "x": np.stack([rows, rows, rows], axis=1),
        "z": np.stack([rows, -rows, rows], axis=1).astype(np.float64),
        "wide": np.zeros((COUNT, 5), np.float32),
        "sound": [np.zeros(1 + row % 2, np.float32) for row in range(COUNT)],
        "words": ["word"] * COUNT,
        "label": np.arange(COUNT) % 3,
    }
    async with opened(tmp_path) as library:
        await add_arrays(library, "points", columns, {"train": slice(None), "test": [3, 1, 4]})
        yield library


async def rows_of(library: Library, epoch: int = 0, step: int = 7, **more: Any) -> tuple[list[int], list[int]]:
    """Of an epoch, and of the validation split."""

    def read(samples: Samples) -> tuple[list[int], list[int]]:
        found: list[int] = []
        for start in range(0, samples.training, step):
            stop = min(start + step, samples.training)
            batch = samples.train(epoch, start, stop)
            samples.expect(epoch, start + step, stop + step)
            assert len(batch) == stop - start
            numbers = batch.inputs["x"][:, 0].int().tolist()
            assert batch.labels.tolist() == [number % 3 for number in numbers]
            assert batch.labels.dtype == torch.int64
            assert {each.dtype for each in batch.inputs.values()} == {torch.float32}
            found += numbers
        held = samples.evaluation.get("validation", 0)
        judged = samples.evaluate("validation", 0, held).inputs["x"][:, 0].int().tolist() if held else []
        return found, judged

    async with open_samples(library, settings_of(**more), ROUTING) as samples:
        return await asyncio.to_thread(read, samples)


async def test_every_sample_once_and_none_of_those_held_out(library: Library) -> None:
    found, held = await rows_of(library)
    assert len(held) == 10
    assert sorted(found + held) == list(range(COUNT))
    assert found != sorted(found)
    other, again = await rows_of(library, epoch=1, step=13, seed=0)
    assert again == held
    assert set(other) == set(found)
    assert other != found
    assert (await rows_of(library, seed=3))[1] == held
    assert await rows_of(library, step=50) == (found, held)


async def test_splits_by_their_names(library: Library) -> None:
    found, held = await rows_of(library, validation="test")
    assert (len(found), held) == (COUNT, [3, 1, 4])
    assert len((await rows_of(library, validation=""))[0]) == COUNT
    async with open_samples(library, settings_of(test="none"), ROUTING) as samples:
        assert set(samples.evaluation) == {"validation"}
    async with open_samples(library, settings_of(split="test", validation=""), ROUTING) as samples:
        assert (samples.training, samples.evaluation) == (3, {})
    async with open_samples(library, settings_of(), ROUTING) as samples:
        assert samples.evaluation == {"validation": 10, "test": 3}


async def test_a_guess_that_is_not_quite_right_is_used_all_the_same(library: Library) -> None:
    def read(samples: Samples) -> None:
        right = samples.train(0, 10, 30).inputs["x"]
        for guess in ((5, 20), (15, 20), (12, 40), (0, 10), (30, 60), (10, 30)):
            samples.expect(0, *guess)
            assert torch.equal(samples.train(0, 10, 30).inputs["x"], right)
        samples.expect(1, 10, 30)
        assert torch.equal(samples.train(0, 10, 30).inputs["x"], right)
        samples.expect(0, 500, 600)

    async with open_samples(library, settings_of(), ROUTING) as samples:
        await asyncio.to_thread(read, samples)


async def test_what_lacks_does_not_depend_on_how_the_epoch_is_shared_out(library: Library) -> None:
    def masks(samples: Samples, step: int) -> list[list[bool]]:
        found: list[list[bool]] = []
        for start in range(0, 60, step):
            inputs = samples.train(2, start, start + step).inputs
            there = torch.ones(step, dtype=torch.bool)
            both = [inputs.get(f"{name}.present", there) for name in ("x", "z")]
            assert all((inputs[name][~mask] == 0).all() for name, mask in zip(("x", "z"), both, strict=True))
            found += torch.stack(both, dim=1).tolist()
        return found

    async with open_samples(library, settings_of(modality_dropout=0.3), ROUTING) as samples:
        one, other = [await asyncio.to_thread(masks, samples, step) for step in (60, 5)]
    assert one == other
    assert all(any(row) for row in one)
    assert {tuple(row) for row in one} == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"], list("abcde")])
def test_each_input_lacks_as_often_as_it_should_and_never_all(names: list[str]) -> None:
    inputs = drop({name: torch.ones(20_000) for name in names}, names, 0.45, seed=1, epoch=3, start=0)
    there = torch.stack([inputs[f"{name}.present"] for name in names])
    assert (1 - there.float().mean(dim=1)).numpy() == pytest.approx(np.full(len(names), 0.45), abs=0.02)
    assert len(names) == 1 or bool(there.any(dim=0).all())
    again = drop({name: torch.ones(100) for name in names}, names, 0.45, seed=1, epoch=3, start=700)
    assert torch.equal(again[f"{names[0]}.present"], there[0, 700:800])


def changed(text: str, **more: str) -> Routing:
    for old, new in more.items():
        text = text.replace(old, new)
    return Routing(parse_manifest(text), {"class": 1.0})


MISFITS: list[tuple[dict[str, Any], dict[str, int], str]] = [
    ({"inputs": {"x": "y"}}, {}, "data set 'points' has no modality 'y' for input 'x'; it has x, z, wide"),
    ({"inputs": {"q": "x"}}, {}, "the brain has no input 'q'; it has x, z"),
    ({"inputs": {"x": "wide"}}, {}, r"modality 'wide' of data set 'points' is FP32 \[-1, 5\], and input 'x' takes"),
    ({"inputs": {"x": "words"}}, {}, r"modality 'words' of data set 'points' is BYTES"),
    ({"label": "lable"}, {}, "has no modality 'lable' to learn; it has"),
    ({"label": "x"}, {}, r"modality 'x' of data set 'points' is FP32 \[-1, 3\], and cross_entropy needs"),
    ({"label": "words", "loss": "mse"}, {}, "modality 'words' of data set 'points' is text"),
    ({"data": "plain@1"}, {}, "data set 'plain' has labels none; name the modality"),
    ({}, {"class": 2}, "'label' of data set 'points' has 3 classes, and output 'class' has 2"),
    ({"split": "tarin"}, {}, "data set 'points' has no split 'tarin'; it has train, test"),
    ({"validation": "vali"}, {}, "there is no split 'vali' to judge by; there are train, test, or a share"),
    ({"validation": "1.5"}, {}, "the share 1.5 cannot be held out"),
    ({"data": "nothing@1"}, {}, "nothing"),
]


async def test_what_does_not_fit_is_named(library: Library) -> None:
    await add_arrays(library, "plain", {"x": np.zeros((3, 3), np.float32)}, {"all": slice(None)})
    for more, classes, sentence in MISFITS:
        with pytest.raises(EncephalonError, match=sentence):
            async with open_samples(library, settings_of(**more), ROUTING, classes):
                pass


async def test_ranges_and_shapes_that_are_not_there(library: Library) -> None:
    text = FORK.replace("x: {datatype: FP32, shape: [-1, 3]", "x: {datatype: FP32, shape: [-1, -1]")
    async with open_samples(library, settings_of(inputs={"x": "sound"}), changed(text)) as samples:
        with pytest.raises(
            InvalidInput, match=r"split 'train' has samples of the shapes \[1\], \[2\] in modality 'sound'"
        ):
            await asyncio.to_thread(samples.train, 0, 0, 20)
        with pytest.raises(InvalidInput, match="samples 80 to 92 for 'train' are not there; it has 91"):
            await asyncio.to_thread(samples.train, 0, 80, 92)
        with pytest.raises(InvalidInput, match="judges nothing for 'exam'; it has train, validation, test"):
            await asyncio.to_thread(samples.evaluate, "exam", 0, 1)


async def test_numbers_to_come_near_to_are_floats(library: Library) -> None:
    async with open_samples(library, settings_of(loss="mse", label="z"), ROUTING) as samples:
        batch = await asyncio.to_thread(samples.train, 0, 0, 4)
        assert (batch.labels.dtype, batch.labels.shape) == (torch.float32, (4, 3))
        assert torch.equal(batch.part(1, 3).labels, batch.labels[1:3])


async def test_without_a_loop_and_the_digest(library: Library, tmp_path: Path) -> None:
    def read(**more: Any) -> str:
        with reading_samples(open_library(**stores(tmp_path), seed=False), settings_of(**more), ROUTING) as samples:
            assert len(samples.train(0, 0, 5)) == 5
            return samples.digest

    digests = [await asyncio.to_thread(read, **more) for more in ({}, {"seed": 1}, {"validation": ""}, {})]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


async def test_a_negative_label_is_named(library: Library) -> None:
    modalities = [
        pb.Modality(name="x", type="tensor", datatype="FP32", shape=[3]),
        pb.Modality(name="number", type="tensor", datatype="INT64"),
    ]
    columns = {"x": np.zeros((4, 3), np.float32), "number": np.array([0, -1, 2, 1])}
    await add_arrays(library, "odd", columns, {"train": slice(None)}, modalities)
    async with open_samples(library, settings_of(data="odd@1", label="number", validation=""), ROUTING) as samples:
        with pytest.raises(InvalidInput, match="split 'train' has label -1 in modality 'number'"):
            await asyncio.to_thread(samples.train, 0, 0, 4)


async def test_they_close_while_something_is_read_ahead(library: Library) -> None:
    async with open_samples(library, settings_of(), ROUTING) as samples:
        await asyncio.to_thread(samples.train, 0, 0, 10)
        samples.expect(0, 10, 90)
