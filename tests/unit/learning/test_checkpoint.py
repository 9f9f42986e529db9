from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound
from encephalon.learning.checkpoint import read_tensors, write_initial
from encephalon.learning.layout import planned
from encephalon.learning.optimizers import whole
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.store import Store
from encephalon.state import Objects, open_objects, read
from tests.unit.parameter_server.shards import TENSORS, gradients, optimizer, push, tensor

MODEL = (*TENSORS, tensor("c/weight", 90, 1000))


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[Objects]:
    async with open_objects(f"folder://{tmp_path}/objects") as opened:
        yield opened


def weights(tensors: tuple[pb.Tensor, ...] = MODEL) -> list[tuple[pb.Tensor, torch.Tensor]]:
    values = gradients(5, tensors)
    return [(each, value) for each in tensors if (value := values[each.name]) is not None]


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Run:
    """The shards of a run, in one process."""

    def __init__(self, objects: Objects, folder: Path, wanted: pb.Optimizer) -> None:
        self.objects, self.folder, self.wanted = objects, folder, wanted
        self.stores: list[Store] = []
        self.generation = 0

    async def load(self, checkpoint: pb.Checkpoint, shards: int) -> None:
        self.close()
        self.generation += 1
        layout = planned(checkpoint.tensors, shards, whole=whole(self.wanted))
        for shard in range(shards):
            request = pb.LoadRequest(
                generation=self.generation,
                shard=shard,
                layout=layout,
                optimizer=self.wanted,
                checkpoint=checkpoint,
            )
            self.stores.append(await Store.load(request, self.objects, self.folder))

    async def learn(self, *versions: int, absent: str = "") -> None:
        for version in versions:
            values = gradients(version, MODEL)
            for store in self.stores:
                push(store, {name: None if name == absent else value for name, value in values.items()}, version)
                await store.prepare(version, [(0, 0)])
                await store.decide(version, Decision.APPLY, version=version)

    async def save(self) -> pb.Checkpoint:
        pieces = []
        for store in self.stores:
            path = self.folder / f"{store.shard}.piece"
            piece = await store.snapshot(path, f"v{store.version}/{store.shard}", version=store.version)
            await self.objects.upload(piece.key, path, sha256=piece.sha256)
            path.unlink()
            pieces.append(piece)
        first = self.stores[0]
        return pb.Checkpoint(version=first.version, tensors=first.layout.tensors, pieces=pieces)

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self.stores = []


ADAMW = optimizer("AdamW", "CosineAnnealingLR", {"T_max": 9}, lr=0.02)


async def test_the_beginning_is_read_back_in_shapes(objects: Objects, tmp_path: Path) -> None:
    checkpoint = await write_initial(objects, "run/0", weights())
    assert checkpoint.version == 0
    found = await read_tensors(objects, checkpoint, tmp_path)
    assert list(found) == [each.name for each in MODEL]
    assert all(torch.equal(found[each.name], value) for each, value in weights())
    assert left(tmp_path) == ["objects"], "nothing is left on the disk"


async def test_an_initial_tensor_must_be_what_it_says(objects: Objects) -> None:
    described, value = weights()[0]
    for wrong, match in (
        (value.double(), "torch.float64"),
        (value.view(-1), "expected float32"),
        (value / 0, "finite"),
    ):
        with pytest.raises(InvalidInput, match=match):
            await write_initial(objects, "run/0", [(described, wrong)])


@pytest.mark.parametrize(
    "wanted",
    [
        ADAMW,
        optimizer("SGD", "OneCycleLR", {"max_lr": 0.5, "total_steps": 30}, lr=0.1, momentum=0.9),
        optimizer("NAdam", "MultiStepLR", {"milestones": [3, 5]}),
        optimizer("Adagrad", initial_accumulator_value=0.5),
        optimizer("ASGD"),
        optimizer("Adafactor"),
    ],
    ids=lambda wanted: wanted.name,
)
async def test_another_number_of_shards_goes_on_with_the_same_bits(
    objects: Objects, tmp_path: Path, wanted: pb.Optimizer
) -> None:
    begin = await write_initial(objects, "run/0", weights())
    quiet = Run(objects, tmp_path, wanted)
    await quiet.load(begin, 1)
    await quiet.learn(1, 2)
    await quiet.learn(3, absent="b/weight")
    await quiet.learn(4, 5, 6)
    expected = await read_tensors(objects, await quiet.save(), tmp_path)
    rate = quiet.stores[0].learning_rate

    moved = Run(objects, tmp_path, wanted)
    await moved.load(begin, 3)
    await moved.learn(1, 2)
    await moved.load(await moved.save(), 2)
    await moved.learn(3, absent="b/weight")
    await moved.learn(4)
    await moved.load(await moved.save(), 1)
    await moved.learn(5, 6)
    found = await read_tensors(objects, await moved.save(), tmp_path)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert moved.stores[0].learning_rate == rate
    quiet.close()
    moved.close()


async def test_a_shard_fetches_only_the_pieces_that_it_needs(objects: Objects, tmp_path: Path) -> None:
    run = Run(objects, tmp_path, ADAMW)
    await run.load(await write_initial(objects, "run/0", weights()), 3)
    await run.learn(1)
    checkpoint = await run.save()
    await objects.delete(checkpoint.pieces[2].key)
    layout, last = run.stores[0].layout, run.stores[1]
    run.close()
    request = pb.LoadRequest(generation=2, shard=1, layout=layout, optimizer=ADAMW, checkpoint=checkpoint)
    again = await Store.load(request, objects, tmp_path)
    assert (again.version, again.decided) == (1, [])
    assert torch.equal(again.flat, last.flat)
    with pytest.raises(NotFound):
        await read_tensors(objects, checkpoint, tmp_path)
    again.close()


async def saved(objects: Objects, folder: Path) -> pb.Checkpoint:
    run = Run(objects, folder, ADAMW)
    await run.load(await write_initial(objects, "run/0", weights()), 2)
    await run.learn(1)
    checkpoint = await run.save()
    run.close()
    return checkpoint


def _gap(checkpoint: pb.Checkpoint) -> None:
    del checkpoint.pieces[1].slices[0]


def _twice(checkpoint: pb.Checkpoint) -> None:
    checkpoint.pieces[1].slices.append(checkpoint.pieces[0].slices[0])


def _beyond(checkpoint: pb.Checkpoint) -> None:
    checkpoint.pieces[1].slices.append(pb.Slice(tensor=0, start=2800, stop=2900))


def _stranger(checkpoint: pb.Checkpoint) -> None:
    checkpoint.pieces[1].slices.append(pb.Slice(tensor=77, start=0, stop=1))


def _digest(checkpoint: pb.Checkpoint) -> None:
    checkpoint.pieces[0].sha256 = "0" * 64


def _version(checkpoint: pb.Checkpoint) -> None:
    checkpoint.version = 2


def _swapped(checkpoint: pb.Checkpoint) -> None:
    first, second = checkpoint.pieces[0], checkpoint.pieces[1]
    first.key, second.key = second.key, first.key
    first.sha256, second.sha256 = second.sha256, first.sha256
    first.size, second.size = second.size, first.size


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_gap, "in none"),
        (_twice, "in two pieces"),
        (_beyond, "in two pieces"),
        (_stranger, "tensor 77"),
        (_digest, "says"),
        (_version, "of version 1, not 2"),
        (_swapped, "is missing"),
    ],
)
async def test_a_checkpoint_that_does_not_fit_together_is_corrupt(
    objects: Objects, tmp_path: Path, damage: Callable[[pb.Checkpoint], None], match: str
) -> None:
    checkpoint = await saved(objects, tmp_path)
    damage(checkpoint)
    layout = planned(MODEL, 1)
    with pytest.raises(Corrupt, match=match):
        await read_tensors(objects, checkpoint, tmp_path)
    request = pb.LoadRequest(generation=2, layout=layout, optimizer=ADAMW, checkpoint=checkpoint)
    with pytest.raises(Corrupt, match=match):
        await Store.load(request, objects, tmp_path)
    assert left(tmp_path) == ["objects"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: data.replace(b'"F32"', b'"F99"', 1),
        lambda data: data.replace(b'"data_offsets":[0,', b'"data_offsets":[4,', 1),
        lambda data: data.replace(b'"__metadata__"', b'"__metadatu__"', 1),
        lambda data: data[:-4],
    ],
)
async def test_a_piece_that_is_no_piece_is_corrupt(
    objects: Objects, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    checkpoint = await saved(objects, tmp_path)
    piece = checkpoint.pieces[0]
    data = damage(await read(objects, piece.key))
    await objects.put(piece.key, data)
    piece.sha256, piece.size = hashlib.sha256(data).hexdigest(), len(data)
    with pytest.raises(Corrupt, match=r"damaged|does not fit"):
        await read_tensors(objects, checkpoint, tmp_path)


async def test_another_model_or_optimiser_does_not_go_on(objects: Objects, tmp_path: Path) -> None:
    checkpoint = await saved(objects, tmp_path)
    for wanted, tensors, match in (
        (optimizer("SGD"), MODEL, "written with optimizer AdamW"),
        (optimizer("AdamW", "StepLR", {"step_size": 1}), MODEL, "schedule 'CosineAnnealingLR'"),
        (ADAMW, (*MODEL[1:], tensor("a/weight", 70, 40)), "another model"),
        (ADAMW, (*MODEL, tensor("d", 1)), "another model"),
    ):
        request = pb.LoadRequest(generation=2, layout=planned(tensors, 1), optimizer=wanted, checkpoint=checkpoint)
        with pytest.raises((FailedPrecondition, InvalidInput), match=match):
            await Store.load(request, objects, tmp_path)


async def test_a_disk_that_takes_nothing_is_told_and_the_shard_goes_on(objects: Objects, tmp_path: Path) -> None:
    run = Run(objects, tmp_path, ADAMW)
    await run.load(await write_initial(objects, "run/0", weights()), 1)
    store = run.stores[0]
    with pytest.raises(FailedPrecondition, match="cannot be written to /nowhere"):
        await store.snapshot(Path("/nowhere/piece"), "key", version=0)
    with pytest.raises(FailedPrecondition, match="version 4 was asked for, but shard 0 is at 0"):
        await store.snapshot(tmp_path / "piece", "key", version=4)
    await run.learn(1)
    assert (await run.save()).version == 1
    run.close()
