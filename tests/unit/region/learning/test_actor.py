"""The actor alone: what it refuses, and that a newer share ends an older one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import torch

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import Cancelled, FailedPrecondition, InvalidInput
from encephalon.learning.activations import decode, encode
from encephalon.learning.region import learning_region
from encephalon.library.brains import parse_manifest
from encephalon.region.learning.actor import LearningActor
from encephalon.region.learning.stage import Stage
from tests.unit.training.worker.fakes import FakeClient, share_of

MANIFEST = """
brain: one
inputs: {x: {datatype: FP32, shape: [-1, 3]}}
regions: {net: {network: diagnostics/005, arguments: {inputs: 3, outputs: 2, width: 4}}}
pathways: [{from: x, to: net.x}]
outputs: {y: net.y}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Loads:
    def __init__(self) -> None:
        self.count = 0
        self.client: FakeClient | None = None

    async def __call__(self, request: pb.PrepareRequest) -> Callable[[], Stage]:
        def make() -> Stage:
            self.count += 1
            region = learning_region(parse_manifest(MANIFEST).regions[0], None, trainable=request.trainable)
            self.client = FakeClient(region.state())
            return Stage(region, self.client if request.trainable else None, recompute=request.recompute)

        return make


@pytest.fixture
async def loads() -> Loads:
    return Loads()


@pytest.fixture
async def actor(loads: Loads) -> AsyncIterator[LearningActor]:
    actor = LearningActor(loads, beat_s=0.02)
    yield actor
    await actor.close()


class Driver:
    """Sends what a test puts."""

    def __init__(self, actor: LearningActor, begin: pb.Begin) -> None:
        self._queue: asyncio.Queue[pb.LearnRequest] = asyncio.Queue()
        self._queue.put_nowait(pb.LearnRequest(begin=begin))
        self.answers = actor.learn(self._requests())

    async def _requests(self) -> AsyncIterator[pb.LearnRequest]:
        while True:
            yield await self._queue.get()

    def forward(self, number: int, **tensors: torch.Tensor) -> None:
        self._queue.put_nowait(pb.LearnRequest(forward=pb.Pass(micro_batch=number, tensors=encode(tensors))))

    def backward(self, number: int, **tensors: torch.Tensor) -> None:
        self._queue.put_nowait(pb.LearnRequest(backward=pb.Pass(micro_batch=number, tensors=encode(tensors))))

    async def next(self) -> pb.LearnResponse:
        """The next one that is no beat."""
        async for answer in self.answers:
            if not answer.HasField("beat"):
                return answer
        raise AssertionError("the stream ended")


def begin(micro_batches: int = 1, in_flight: int = 1, **more: object) -> pb.Begin:
    return pb.Begin(share=share_of(0, 4), micro_batches=micro_batches, in_flight=in_flight, **more)  # type: ignore[arg-type]


async def test_a_share_from_begin_to_done(actor: LearningActor, loads: Loads) -> None:
    tensors = await actor.prepare(pb.PrepareRequest(run="r", trainable=True))
    assert [each.name for each in tensors][:2] == ["net/layers.0.weight", "net/layers.0.bias"]
    driver = Driver(actor, begin(2, input_gradients=["x"]))
    for number in range(2):
        driver.forward(number, x=torch.ones(2, 3))
    for number in range(2):
        outputs = decode((await driver.next()).forward.tensors)
        assert outputs["y"].shape == (2, 2)
        driver.backward(number, y=torch.ones(2, 2))
        assert decode((await driver.next()).backward.tensors)["x"].shape == (2, 3)
    done = (await driver.next()).done
    assert (done.held_micro_batches, done.sent_bytes) == (1, 20)
    assert loads.client is not None
    assert loads.client.pushes[0].finished
    assert set(loads.client.pushes[0].sent) == {each.name for each in tensors}


async def test_it_is_loaded_again_only_for_something_else(actor: LearningActor, loads: Loads) -> None:
    for run in ("a", "a", "b"):
        await actor.prepare(pb.PrepareRequest(run=run, trainable=True))
    assert loads.count == 2


async def test_a_share_before_prepare_is_refused(actor: LearningActor) -> None:
    with pytest.raises(FailedPrecondition, match="call Prepare first"):
        await Driver(actor, begin()).next()


async def test_a_newer_share_ends_an_older_one(actor: LearningActor) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True))
    older = Driver(actor, begin(2))
    older.forward(0, x=torch.ones(2, 3))
    assert (await older.next()).HasField("forward")
    newer = Driver(actor, begin())
    newer.forward(0, x=torch.ones(2, 3))
    assert (await newer.next()).HasField("forward")
    older.backward(0, y=torch.ones(2, 2))
    with pytest.raises(Cancelled, match="another one has taken its place"):
        await older.next()
    newer.backward(0)
    assert (await newer.next()).HasField("backward")
    assert (await newer.next()).HasField("done")


async def test_it_beats_while_nothing_comes(actor: LearningActor) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True))
    driver = Driver(actor, begin())
    assert (await anext(driver.answers)).HasField("beat")
    await driver.answers.aclose()


@pytest.mark.parametrize("wrong", [{"micro_batches": 0}, {"in_flight": 0}, {"micro_batches": 1 << 31}])
async def test_absurd_counts_are_refused(actor: LearningActor, wrong: dict[str, int]) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True))
    with pytest.raises(InvalidInput, match="expected 1 to"):
        await Driver(actor, begin(**wrong)).next()


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"x": torch.ones(2, 3, dtype=torch.float64)}, "'x' came as FP64, expected FP32"),
        ({"x": torch.ones(2, 4)}, r"'x' came with shape \[2, 4\]"),
        ({"x": torch.ones(0, 3)}, "at least 1"),
        ({"x": torch.ones(2, 3), "z": torch.ones(2, 3)}, "unknown input 'z'"),
        ({"x.present": torch.ones(2, dtype=torch.bool)}, "input 'x' is missing"),
    ],
)
async def test_what_does_not_fit_the_contract_is_named(
    actor: LearningActor, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True))
    driver = Driver(actor, begin())
    driver.forward(0, **tensors)
    with pytest.raises(InvalidInput, match=sentence):
        await driver.next()


@pytest.mark.parametrize(
    "gradients", [{"z": torch.ones(2, 2)}, {"y": torch.ones(3, 2)}, {"y": torch.ones(2, 2).half()}]
)
@pytest.mark.parametrize("recompute", [False, True])
async def test_a_gradient_of_what_is_no_output_is_named(
    actor: LearningActor, gradients: dict[str, torch.Tensor], recompute: bool
) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True, recompute=recompute))
    driver = Driver(actor, begin())
    driver.forward(0, x=torch.ones(2, 3))
    await driver.next()
    driver.backward(0, **gradients)
    with pytest.raises(InvalidInput, match=f"'{next(iter(gradients))}'"):
        await driver.next()


async def test_a_frozen_region_only_goes_forward(actor: LearningActor) -> None:
    assert await actor.prepare(pb.PrepareRequest(trainable=False)) == []
    driver = Driver(actor, begin(3))
    for number in range(2):
        driver.forward(number, x=torch.ones(1, 3))
        assert (await driver.next()).forward.micro_batch == number
    driver.forward(2)  # nothing to compute
    assert not (await driver.next()).forward.tensors
    done = (await driver.next()).done
    assert (done.held_micro_batches, done.held_bytes) == (0, 0)


async def test_an_evaluation_goes_forward_only(actor: LearningActor, loads: Loads) -> None:
    await actor.prepare(pb.PrepareRequest(trainable=True))
    judged = begin()
    judged.share.kind, judged.share.divisor = training_pb.Share.KIND_EVALUATE, 0
    driver = Driver(actor, judged)
    driver.forward(0, x=torch.ones(1, 3))
    assert (await driver.next()).HasField("forward")
    assert (await driver.next()).HasField("done")
    assert loads.client is not None
    assert loads.client.pushes == []
